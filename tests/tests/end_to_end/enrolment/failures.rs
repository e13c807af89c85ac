//! Makes each step of an enrolment fail: hop explains the failure, and leaves nothing on the router.

use std::fs;
use std::process::Command;

use hop_tests::{Hop, dist, wait_until};
use rustix::process::Signal;

use super::owner::{Interruption, Owner, UPLOAD, put_in_front_of_ssh};
use crate::plan::Case;

pub const ALL: &[Case] = &cases![
    refused_login_is_explained,
    changed_ssh_key_is_refused,
    noexec_tmp_is_refused,
    full_tmp_is_refused,
    missing_applet_is_named,
    damaged_agent_is_refused,
    failing_self_test_is_refused,
    full_flash_falls_back_to_ram,
    flash_filled_meanwhile_leaves_nothing,
    taken_port_is_named,
    wrong_address_is_refused,
    unwritable_inventory_leaves_nothing,
    cut_link_is_cleaned_up,
    interrupted_enrolment_is_undone,
    changed_agent_key_is_enrolled_again,
    missing_ssh_client_is_named,
    simultaneous_enrolment_is_refused,
    silent_new_agent_is_rolled_back,
    interrupted_upgrade_keeps_old_agent,
    upgrade_keeps_anothers_start_options,
    foreign_directory_in_tmp_is_refused,
    incomplete_removal_names_what_stays,
    interrupted_second_controller_stays_out,
    ports_are_learned_after_an_interrupt,
    login_without_a_posix_shell_enrols,
];

fn refused_login_is_explained() {
    // The one of the five that lets nobody in without a password or a key.
    let owner = Owner::of("rut955");
    let before = owner.files();
    let key = owner.machine.path("other-key");
    let keygen = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&key).status();
    assert!(keygen.unwrap().success());
    let login = format!("root@127.0.0.1:{}", owner.machine.machine().ssh_port());
    let words =
        ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"];
    let ran =
        owner.machine.hop().args(["router", "add", "desk", &login]).args(words).arg("-i").arg(&key).run();
    ran.assert_fails(125, "ssh to root@127.0.0.1 failed");
    assert!(ran.stderr().contains("Permission denied"), "{}", ran.stderr());
    owner.assert_nothing_left(&before);
}

fn changed_ssh_key_is_refused() {
    let owner = Owner::of("dir-505");
    let before = owner.files();
    owner.sh("rm /etc/dropbear/dropbear_*_host_key; dropbearkey -t ed25519 -f /etc/dropbear/dropbear_ed25519_host_key; sync");
    owner.machine.machine().reset().unwrap();
    let ran = owner.adding(&["-o", "BatchMode=yes"]).run();
    ran.assert_fails(125, "ssh to root@127.0.0.1 failed");
    assert!(ran.stderr().contains("caused by: Host key verification failed"), "{}", ran.stderr());
    // As its owner would, who knows why.
    let known_hosts = owner.machine.machine().directory().join("known_hosts");
    fs::remove_file(known_hosts).unwrap();
    owner.assert_nothing_left(&before);
}

fn noexec_tmp_is_refused() {
    let owner = Owner::of("dir-505");
    let before = owner.files();
    owner.sh("mount -o remount,noexec /tmp");
    let ran = owner.add(&[]);
    ran.assert_fails_after_progress(125, "/tmp is mounted noexec, so no program can run from it");
    assert!(ran.stderr().contains("hint: on the router: mount -o remount,exec /tmp"), "{}", ran.stderr());
    owner.assert_nothing_left(&before);
}

fn full_tmp_is_refused() {
    let owner = Owner::of("dir-505");
    owner.sh("dd if=/dev/zero of=/tmp/fill bs=1M count=28 2>/dev/null");
    let before = owner.files();
    owner.add(&[]).assert_fails_after_progress(125, "the agent needs ");
    owner.assert_nothing_left(&before);
}

fn missing_applet_is_named() {
    let owner = Owner::of("dir-505");
    owner.sh("rm /bin/sync");
    let before = owner.files();
    owner.add(&[]).assert_fails_after_progress(125, "it has no `sync`, and Hop's scripts need it");
    owner.assert_nothing_left(&before);
}

fn damaged_agent_is_refused() {
    let owner = Owner::of("dir-505");
    let before = owner.files();
    let bin = owner.machine.path("bin");
    fs::create_dir(&bin).unwrap();
    put_in_front_of_ssh(&bin, UPLOAD, "tr a b | $ssh \"$@\"; exit $?");
    let ran = owner.adding_at(&[]).first_in_path(&bin).run();
    ran.assert_fails_after_progress(125, "the agent arrived damaged: its digest is ");
    owner.assert_nothing_left(&before);
}

fn failing_self_test_is_refused() {
    let owner = Owner::of("dir-505");
    let before = owner.files();
    let interruption = Interruption::new(&owner.machine);
    let running = interruption.during(owner.adding_at(&[]), |_| {
        // A file where it wants a directory.
        owner.sh("for target in /tmp/hop-*; do : >$target/test; done");
    });
    let ran = running.wait();
    ran.assert_fails_after_progress(
        125,
        "the agent's self-test failed on root@127.0.0.1: files beyond 4 GiB",
    );
    owner.assert_nothing_left(&before);
}

fn full_flash_falls_back_to_ram() {
    let owner = Owner::of("dir-505");
    owner.sh("dd if=/dev/urandom of=/root/fill bs=1k count=2300 2>/dev/null; sync");
    let before = owner.files();
    let ran = owner.add(&["--install"]);
    ran.assert_fails_after_progress(125, "has no space for an agent that survives a reboot");
    assert!(ran.stderr().contains("hint: --until-reboot keeps everything in RAM"), "{}", ran.stderr());
    owner.assert_nothing_left(&before);
    // Nobody asked for flash, so RAM will do.
    let ran = owner.add(&[]);
    assert!(ran.stderr().contains("so it is until the next reboot"), "{}", ran.stderr());
    assert!(ran.stdout().ends_with(": until its next reboot\n"), "{}", ran.stdout());
    assert_eq!(owner.router("remove").code, 0);
    owner.assert_nothing_left(&before);
}

fn flash_filled_meanwhile_leaves_nothing() {
    let owner = Owner::of("dir-505");
    let before = owner.files();
    let interruption = Interruption::new(&owner.machine);
    let running = interruption.during(owner.adding_at(&["--install"]), |_| {
        owner.sh("dd if=/dev/urandom of=/root/fill bs=1k count=2500 2>/dev/null; sync");
    });
    let ran = running.wait();
    ran.assert_fails_after_progress(125, "putting the agent in place failed on root@127.0.0.1");
    assert!(ran.stderr().contains("cannot write /usr/sbin/hopd: no space left?"), "{}", ran.stderr());
    owner.sh("rm /root/fill");
    owner.assert_nothing_left(&before);
}

fn taken_port_is_named() {
    let owner = Owner::of("dir-505");
    let before = owner.files();
    // dropbear's. Something listens there, and it is not taken for the agent, which says why it does not.
    for way in ["--install", "--until-reboot"] {
        let ran = owner.adding(&[way, "--via-ssh", "--port", "22"]).run();
        ran.assert_fails_after_progress(125, "the agent was started on root@127.0.0.1 and does not listen");
        for said in
            ["caused by: cannot listen on 127.0.0.1:22: Address in use", "hint: --port chooses another one"]
        {
            assert!(ran.stderr().contains(said), "{said}: {}", ran.stderr());
        }
        owner.assert_nothing_left(&before);
    }
}

fn wrong_address_is_refused() {
    let owner = Owner::of("dir-505");
    let before = owner.files();
    let at = format!("127.0.0.1:{}", owner.machine.machine().ssh_port());
    owner.adding(&["--agent-address", &at]).run().assert_fails_after_progress(125, "is not hopd");
    owner.assert_nothing_left(&before);
}

fn unwritable_inventory_leaves_nothing() {
    let owner = Owner::of("f7d7302");
    let before = owner.files();
    // A file where a directory should be stops root as well.
    let routers = owner.machine.path("home").join("routers");
    let _ = fs::remove_dir(&routers);
    fs::write(&routers, "").unwrap();
    let ran = owner.add(&["--until-reboot"]);
    assert_eq!(ran.code, 125, "{}", ran.stderr());
    fs::remove_file(&routers).unwrap();
    owner.assert_nothing_left(&before);
}

fn cut_link_is_cleaned_up() {
    let owner = Owner::of("dir-505");
    let before = owner.files();
    let interruption = Interruption::new(&owner.machine);
    // A shorter patience than its own 20 s, as a user may have.
    let words = ["--install", "-o", "ServerAliveInterval=1"];
    let running = interruption.during(owner.adding_at(&words), |_| {
        owner.machine.monitor().set_link(false).unwrap();
    });
    let ran = running.wait();
    ran.assert_fails_after_progress(125, "ssh to root@127.0.0.1 failed");
    assert!(ran.stderr().contains("could not be removed"), "{}", ran.stderr());
    assert!(ran.stderr().contains("the router removes it within a minute"), "{}", ran.stderr());
    owner.machine.monitor().set_link(true).unwrap();
    owner.wait_until_undone();
    owner.assert_nothing_left(&before);
}

fn interrupted_enrolment_is_undone() {
    let owner = Owner::of("dir-505");
    let before = owner.files();
    for signal in [Signal::KILL, Signal::INT] {
        let interruption = Interruption::new(&owner.machine);
        let running = interruption.during(owner.adding_at(&["--install"]), |hop| hop.signal(signal));
        let ran = running.wait();
        if signal == Signal::INT {
            ran.assert_fails_after_progress(130, "interrupted by SIGINT");
        }
        owner.wait_until_undone();
        owner.assert_nothing_left(&before);
        fs::remove_dir_all(owner.machine.path("interruption")).unwrap();
    }
}

fn changed_agent_key_is_enrolled_again() {
    let owner = Owner::of("dir-505");
    owner.assert_added(&["--install"]);
    let before = owner.entry();
    owner.sh("rm /etc/hopd/key; /etc/init.d/hopd restart");
    wait_until("the agent has another key", || {
        owner.run(owner.machine.hop()).stderr().contains("has another key than the enrolled one")
    });
    let ran = owner.run(owner.machine.hop());
    assert!(ran.stderr().contains("`hop router add desk` enrols it again"), "{}", ran.stderr());
    assert_eq!(owner.router("add").code, 0);
    owner.assert_runs(&owner.machine.hop());
    assert_ne!(owner.entry(), before, "its new key is pinned");
}

fn missing_ssh_client_is_named() {
    let home = tempfile::tempdir().unwrap();
    let hop = hop_tests::Hop::at(home.path()).env("PATH", home.path());
    let ran = hop.args(["router", "add", "desk", "root@192.0.2.1"]).run();
    ran.assert_fails(125, "cannot run ssh");
    assert!(ran.stderr().contains("hint: install the OpenSSH client"), "{}", ran.stderr());
}

fn simultaneous_enrolment_is_refused() {
    let owner = Owner::of("dir-505");
    let interruption = Interruption::new(&owner.machine);
    let running = interruption.during(owner.adding_at(&[]), |_| {
        owner.add(&[]).assert_fails_after_progress(125, "another enrolment of root@127.0.0.1 is under way");
    });
    assert_eq!(running.wait().code, 0);
    owner.assert_runs(&owner.machine.hop());
}

fn silent_new_agent_is_rolled_back() {
    let owner = Owner::of("dir-505");
    owner.assert_added(&["--install"]);
    // An old agent, told apart by its length, and an init script with which no other one starts.
    owner.sh(
        "cp /usr/sbin/hopd /tmp/old && echo >>/tmp/old && /etc/init.d/hopd stop
        rm /usr/sbin/hopd && cp /tmp/old /usr/sbin/hopd && chmod 755 /usr/sbin/hopd
        sed -i 's#^start_service() {#&\\n\\tcmp -s /usr/sbin/hopd /tmp/old || PROG=/bin/false#' /etc/init.d/hopd
        /etc/init.d/hopd start",
    );
    owner.wait_for_agent();
    // Nobody is left to say that it failed.
    let upgrading = owner.machine.hop().args(["router", "upgrade", "desk"]).start();
    let shell = owner.machine.log_in();
    wait_until("the new agent is in place", || shell.holds("cmp -s /usr/sbin/hopd /tmp/hop-*/hopd || false"));
    upgrading.signal(Signal::KILL);
    upgrading.wait();
    owner.wait_until_undone();
    owner.sh("cmp /usr/sbin/hopd /tmp/old");
    owner.wait_for_agent();

    let ran = owner.router("upgrade");
    ran.assert_fails_after_progress(125, "the agent was started on root@127.0.0.1 and does not listen");
    assert!(ran.stderr().contains("the old agent is there, and runs"), "{}", ran.stderr());
    owner.sh("cmp /usr/sbin/hopd /tmp/old && rm /tmp/old");
    owner.wait_for_agent();
    owner.assert_runs(&owner.machine.hop());
    assert_eq!(owner.sh("ls -d /tmp/hop*"), "/tmp/hop\n");
}

fn interrupted_upgrade_keeps_old_agent() {
    let owner = Owner::of("dir-505");
    owner.assert_added(&["--until-reboot"]);
    owner.sh("cd /tmp/hop && cp hopd other && echo >>other && mv other hopd && cp hopd /tmp/old");
    for (when, signal) in [(UPLOAD, Signal::INT), (UPLOAD, Signal::KILL), ("rm /tmp/hop-", Signal::TERM)] {
        let interruption = match when {
            UPLOAD => Interruption::new(&owner.machine),
            words => Interruption::before(&owner.machine, words),
        };
        let upgrading = owner.machine.hop().args(["router", "upgrade", "desk"]);
        let ran = interruption.during(upgrading, |hop| hop.signal(signal)).wait();
        if signal != Signal::KILL {
            ran.assert_fails_after_progress(128 + signal.as_raw(), "interrupted by SIG");
        }
        owner.wait_until_undone();
        owner.sh("cmp /tmp/hop/hopd /tmp/old");
        owner.assert_runs(&owner.machine.hop());
        fs::remove_dir_all(owner.machine.path("interruption")).unwrap();
    }
    // There is no space for the old agent next to the new one.
    let one_and_a_half = dist("hopd-mips").metadata().unwrap().len() * 3 / 2 / 1024;
    owner.sh(&format!(
        "set -- $(df -kP /tmp | tail -n 1); dd if=/dev/zero of=/tmp/fill bs=1k count=$(($4 - {one_and_a_half})) 2>/dev/null"
    ));
    owner.router("upgrade").assert_fails_after_progress(125, "replacing the agent failed on root@127.0.0.1");
    owner.sh("rm /tmp/fill; cmp /tmp/hop/hopd /tmp/old");
    owner.wait_until_undone();
    owner.assert_runs(&owner.machine.hop());
}

fn upgrade_keeps_anothers_start_options() {
    let owner = Owner::of("dir-505");
    owner.assert_added(&["--until-reboot"]);
    // As one with --via-ssh and --cache-dir would have.
    owner.sh("kill $(cat /tmp/hop/pid)");
    let shell = owner.machine.log_in();
    wait_until("the agent has ended", || !shell.holds("[ -e /tmp/hop/pid ]"));
    owner.sh("cd /tmp/hop
        cp hopd other && echo >>other && mv other hopd
        ./hopd --supervise --listen 0.0.0.0:4670 --dir /tmp/hop --pid-file /tmp/hop/pid --log /tmp/hop/log \
            --key key --authorized authorized --cache-dir /mnt/theirs </dev/null >/dev/null 2>&1 &");
    owner.wait_for_agent();
    let upgraded = owner.router("upgrade");
    assert_eq!(upgraded.code, 0, "{}", upgraded.stderr());
    let words = owner.sh("tr '\\0' ' ' </proc/$(cat /tmp/hop/pid)/cmdline");
    assert!(
        words.contains("--listen 0.0.0.0:4670 ") && words.contains("--cache-dir /mnt/theirs "),
        "{words}"
    );
    owner.assert_runs(&owner.machine.hop());
}

fn foreign_directory_in_tmp_is_refused() {
    let owner = Owner::of("dir-505");
    for trap in
        ["mkdir -m 700 /tmp/hop; chown 65534 /tmp/hop", "mkdir -m 755 /tmp/hop", "ln -s /root /tmp/hop"]
    {
        owner.sh(trap);
        let ran = owner.add(&["--until-reboot"]);
        ran.assert_fails_after_progress(125, "/tmp/hop on root@127.0.0.1 is not root's alone");
        assert!(ran.stderr().contains("hint: on the router: `ls -ldn /tmp/hop`"), "{trap}: {}", ran.stderr());
        owner.sh("rm -rf /tmp/hop");
    }
    owner.assert_added(&["--until-reboot"]);
}

fn incomplete_removal_names_what_stays() {
    let owner = Owner::of("dir-505");
    let before = owner.files();
    owner.assert_added(&["--install"]);
    // As in failsafe mode and at a first boot: what is on the flash would run again after the next boot.
    owner.sh("umount -l /overlay");
    let ran = owner.router("remove");
    ran.assert_fails_after_progress(125, "the agent is installed on root@127.0.0.1, and cannot be removed");
    assert!(ran.stderr().contains("its flash is not mounted"), "{}", ran.stderr());
    owner.assert_runs(&owner.machine.hop());
    owner.reboot();
    owner.wait_for_agent();
    owner.sh("mount -t tmpfs -o mode=0700 none /etc/hopd/ && mkdir -m 700 /tmp/hop-0123456789abcdef");
    let ran = owner.router("remove");
    ran.assert_fails_after_progress(125, "removing the agent failed on root@127.0.0.1");
    assert!(ran.stderr().contains("/etc/hopd is still there"), "{}", ran.stderr());
    assert!(owner.entry().is_some());
    owner.sh("umount /etc/hopd");
    assert_eq!(owner.router("remove").code, 0);
    owner.assert_nothing_left(&before);
}

fn interrupted_second_controller_stays_out() {
    let owner = Owner::of("dir-505");
    owner.assert_added(&["--until-reboot"]);
    let list = owner.sh("cat /tmp/hop/authorized");
    let interruption = Interruption::before(&owner.machine, "question='\\''fingerprint'\\''");
    let home = owner.machine.path("second");
    let words = ["--agent-address", &owner.machine.machine().agent_address()];
    let adding = Hop::at(&home).args(["router", "add", "desk"]).args(owner.login()).args(words);
    let ran = interruption.during(adding, |hop| hop.signal(Signal::INT)).wait();
    ran.assert_fails_after_progress(130, "interrupted by SIGINT");
    assert_eq!(owner.sh("cat /tmp/hop/authorized"), list);
    owner.assert_runs(&owner.machine.hop());
}

fn ports_are_learned_after_an_interrupt() {
    let owner = Owner::of("dir-505");
    let machine = owner.machine.machine();
    let state = machine.directory().join("machine.toml");
    let known = fs::read_to_string(&state).unwrap();
    let port = |line: &str| {
        if let Some((name, _)) = line.split_once("_port = ") {
            format!("{name}_port = 0\n")
        } else {
            format!("{line}\n")
        }
    };
    fs::write(&state, known.lines().map(port).collect::<String>()).unwrap();
    let ran = owner.machine.hop().args(["virtual", "up", "--bare", "--profile", "dir-505"]).run();
    assert_eq!(ran.code, 0, "{}", ran.stderr());
    let at = format!("dir-505 runs already at 127.0.0.1:{}: ", machine.ssh_port());
    assert!(ran.stdout().starts_with(&at), "{}", ran.stdout());
    assert_eq!(fs::read_to_string(&state).unwrap(), known);
}

fn login_without_a_posix_shell_enrols() {
    let owner = Owner::of("dir-505");
    let before = owner.files();
    // A shell that knows commands and single quotes, and nothing else of POSIX.
    owner.sh("printf '%s\\n' '#!/bin/sh' 'case $2 in \"sh -s\"* | \"sh -c \"*) exec sh -c \"$2\" ;; esac' \
            'echo \"odd: cannot read $2\" >&2' 'exit 127' >/tmp/odd
        chmod 755 /tmp/odd
        sed '/^root:/s#[^:]*$#/tmp/odd#' /etc/passwd >/tmp/passwd; echo /tmp/odd >/tmp/shells
        for file in passwd shells; do mount -o bind /tmp/$file /etc/$file; done");
    // With a command of their own for logins, as in ssh_config(5).
    let ran = owner.add(&["--until-reboot", "-o", "RemoteCommand=cat /etc/banner"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr());
    owner.assert_runs(&owner.machine.hop());
    let checked = owner.router("check");
    assert_eq!(checked.code, 0, "{}{}", checked.stdout(), checked.stderr());
    assert_eq!(owner.router("remove").code, 0);
    // One that runs no command at all.
    owner.sh("printf '%s\\n' '#!/bin/echo RouterOS' >/tmp/odd");
    owner.add(&["--until-reboot"]).assert_fails(125, "the login shell of root@127.0.0.1 does not run `sh`");
    owner.sh("umount /etc/passwd; umount /etc/shells; rm /tmp/passwd /tmp/shells /tmp/odd");
    owner.assert_nothing_left(&before);
}
