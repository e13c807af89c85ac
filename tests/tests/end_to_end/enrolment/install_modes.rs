//! The two ways, from the first login to the last file.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use hop_tests::Hop;

use super::owner::Owner;
use crate::plan::Case;

pub const ALL: &[Case] = &cases![
    until_reboot_on_a_dir_505,
    until_reboot_on_a_rut955,
    until_reboot_on_an_archer_a6,
    until_reboot_on_an_f7d7302,
    until_reboot_on_a_fritzbox_7362sl,
    install_on_a_dir_505,
    install_on_a_rut955,
    install_on_an_archer_a6,
    install_on_an_f7d7302,
    install_on_a_fritzbox_7362sl,
    install_in_the_jffs_of_an_f7d7302,
    installed_agent_survives_sysupgrade,
    reboot_waits_for_the_agent,
    stick_keeps_programs_across_reboots,
    via_ssh_listens_on_loopback_only,
    password_is_asked_once,
];

/// In RAM: gone with a reboot, back with one command, and then without a trace.
fn until_reboot(profile: &'static str) {
    let owner = Owner::of(profile);
    let before = owner.files();
    owner.assert_added(&["--until-reboot"]);
    let check = owner.router("check");
    assert_eq!(check.code, 0, "{}", check.stdout());
    let listens = "it listens on port 4670 of eth0 and of the loopback";
    assert!(check.stdout().contains(listens), "{}", check.stdout());

    // Another build of the same agent, which its digest tells apart.
    owner.sh("cd /tmp/hop && cp hopd other && echo >>other && mv other hopd");
    let upgraded = owner.router("upgrade");
    assert_eq!(upgraded.code, 0, "{}", upgraded.stderr());
    assert!(upgraded.stdout().starts_with("desk upgraded to hopd "), "{}", upgraded.stdout());
    owner.assert_runs(&owner.machine.hop());
    assert!(owner.router("upgrade").stdout().starts_with("desk runs already hopd "));

    owner.reboot();
    let ran = owner.run(owner.machine.hop());
    ran.assert_fails(125, "its agent was enrolled --until-reboot");
    assert!(
        ran.stderr().contains("hint: if it was rebooted, `hop router add desk` starts"),
        "{}",
        ran.stderr()
    );
    assert_eq!(owner.router("check").code, 1);

    let again = owner.router("add");
    assert_eq!(again.code, 0, "{}", again.stderr());
    owner.assert_runs(&owner.machine.hop());

    let removed = owner.router("remove");
    assert_eq!(removed.stdout(), "desk removed; nothing of Hop is left on it\n", "{}", removed.stderr());
    owner.assert_nothing_left(&before);
}

/// On flash, or on a stick: back after a reboot and after its death, with the same key, and then without a trace.
fn install(owner: &Owner, program: &str) {
    let before = owner.files();
    owner.assert_added(&["--install"]);
    owner.sh(&format!("[ -x {program} ]"));
    let enrolled = owner.entry();
    assert_eq!(owner.router("check").code, 0);

    owner.reboot();
    // Its key is the one that was enrolled, or it would not be answered.
    owner.wait_for_agent();
    owner.assert_runs(&owner.machine.hop());

    // On a DD-WRT its supervisor has the pid file, and is not the one that dies.
    let killed = owner.sh("supervisor=$(grep -l supervise /proc/[0-9]*/cmdline 2>/dev/null | grep -v self)
        for p in /proc/[0-9]*; do
            [ \"$(cat $p/comm 2>/dev/null)\" = hopd ] || continue
            case $supervisor in *$p/cmdline*) continue ;; esac
            echo ${p##*/}; kill -9 ${p##*/}
        done");
    assert_eq!(killed.lines().count(), 1, "one agent ran: {killed}");
    // Its supervisor restarts it within seconds, and a `hop` that connects meanwhile does not fail.
    owner.assert_runs(&owner.machine.hop());

    let upgraded = owner.router("upgrade");
    assert!(upgraded.stdout().starts_with("desk runs already hopd "), "{}", upgraded.stderr());
    let again = owner.router("add");
    assert_eq!((again.code, owner.entry()), (0, enrolled), "nothing is new: {}", again.stderr());

    let removed = owner.router("remove");
    assert_eq!(removed.stdout(), "desk removed; nothing of Hop is left on it\n", "{}", removed.stderr());
    owner.assert_nothing_left(&before);
}

fn until_reboot_on_a_dir_505() {
    until_reboot("dir-505");
}

fn until_reboot_on_a_rut955() {
    until_reboot("rut955");
}

fn until_reboot_on_an_archer_a6() {
    until_reboot("archer-a6");
}

fn until_reboot_on_an_f7d7302() {
    until_reboot("f7d7302");
}

fn until_reboot_on_a_fritzbox_7362sl() {
    until_reboot("fritzbox-7362sl");
}

fn install_on_a_dir_505() {
    install(&Owner::of("dir-505"), "/usr/sbin/hopd");
}

fn install_on_a_rut955() {
    install(&Owner::of("rut955"), "/usr/local/usr/sbin/hopd");
}

fn install_on_an_archer_a6() {
    install(&Owner::of("archer-a6"), "/usr/sbin/hopd");
}

fn install_on_an_f7d7302() {
    install(&Owner::of("f7d7302"), "/tmp/mnt/sda1/hop/hopd");
}

fn install_on_a_fritzbox_7362sl() {
    install(&Owner::of("fritzbox-7362sl"), "/usr/sbin/hopd");
}

fn install_in_the_jffs_of_an_f7d7302() {
    let owner = Owner::of("f7d7302");
    owner.sh("nvram set enable_jffs2=1; nvram commit");
    owner.reboot();
    owner.wait_for_disk();
    install(&owner, "/jffs/hop/hopd");
}

fn installed_agent_survives_sysupgrade() {
    let owner = Owner::of("archer-a6");
    owner.assert_added(&["--install"]);
    owner.sh("echo lost >/etc/not-kept");
    let machine = owner.machine.machine();
    let from = machine.console_length().unwrap();
    // The connection ends with it.
    owner.machine.log_in().run("sysupgrade /tmp/firmware.bin");
    machine.wait_until_ready(from).unwrap();
    owner.sh("[ ! -e /etc/not-kept ]");
    owner.wait_for_agent();
    owner.assert_runs(&owner.machine.hop());
}

fn reboot_waits_for_the_agent() {
    let owner = Owner::of("dir-505");
    owner.assert_added(&["--install"]);
    for word in [None, Some("--hard")] {
        let ran = owner.machine.hop().args(["virtual", "reboot", "dir-505"]).args(word).run();
        assert_eq!((ran.stdout(), ran.code), ("dir-505 rebooted\n", 0), "{}", ran.stderr());
        owner.assert_runs(&owner.machine.hop());
    }
}

fn stick_keeps_programs_across_reboots() {
    let owner = Owner::of("f7d7302");
    let before = owner.files();
    let words = ["--until-reboot", "--cache-dir", "/tmp/mnt/sda1/programs"];
    owner.sh("umount /tmp/mnt/sda1");
    owner.add(&words).assert_fails_after_progress(125, "would not survive a reboot");
    owner.sh("mount -t ext2 /dev/sda1 /tmp/mnt/sda1");
    owner.assert_added(&words);
    let kept = "cat /tmp/hop/log; ls /tmp/mnt/sda1/programs";
    hop_tests::wait_until("the program is kept", || {
        owner
            .sh(kept)
            .lines()
            .any(|line| line.len() == 64 && line.bytes().all(|byte| byte.is_ascii_hexdigit()))
    });
    owner.reboot();
    owner.wait_for_disk();
    assert_eq!(owner.router("add").code, 0);
    owner.assert_runs(&owner.machine.hop());
    assert!(owner.sh(kept).contains("program copied from the disk cache"));
    let list = owner.machine.hop().args(["router", "list"]).run();
    assert!(list.stdout().trim_end().ends_with(" /tmp/mnt/sda1/programs"), "{}", list.stdout());
    let checked = owner.router("check");
    let is_there = |line: &str| line.starts_with("ok     disk cache  /tmp/mnt/sda1/programs on ext2, ");
    assert!(checked.code == 0 && checked.stdout().lines().any(is_there), "{}", checked.stdout());
    // What is on a medium that is not there cannot be removed.
    owner.sh("umount /tmp/mnt/sda1");
    let checked = owner.router("check");
    let is_away =
        |line: &str| line.starts_with("WRONG  disk cache  the cache directory /tmp/mnt/sda1/programs would");
    assert!(checked.code == 1 && checked.stdout().lines().any(is_away), "{}", checked.stdout());
    let removed = owner.router("remove");
    let left = "desk removed, but for its disk cache /tmp/mnt/sda1/programs, whose medium is not there";
    assert!(
        removed.code == 1 && removed.stdout().starts_with(left),
        "{}{}",
        removed.stdout(),
        removed.stderr()
    );
    owner.sh(
        "mount -t ext2 /dev/sda1 /tmp/mnt/sda1; rm /tmp/mnt/sda1/programs/*; rmdir /tmp/mnt/sda1/programs",
    );
    owner.assert_nothing_left(&before);
}

fn via_ssh_listens_on_loopback_only() {
    let owner = Owner::of("rut955");
    let before = owner.files();
    let ran = owner.adding(&["--via-ssh", "--install"]).run();
    assert_eq!(ran.code, 0, "{}", ran.stderr());
    owner.assert_runs(&owner.machine.hop());
    let listening = owner.sh("cat /proc/net/tcp");
    let ours: Vec<_> = listening.lines().filter(|line| line.contains(":123E 00000000:0000 0A")).collect();
    // 127.0.0.1 as a big-endian CPU writes it.
    assert!(ours.len() == 1 && ours[0].contains("7F000001:123E"), "{listening}");
    owner.reboot();
    owner.wait_for_agent();
    owner.assert_runs(&owner.machine.hop());
    assert_eq!(owner.router("remove").code, 0);
    owner.assert_nothing_left(&before);
}

fn password_is_asked_once() {
    let owner = Owner::of("f7d7302");
    let (script, asked) = (owner.machine.path("askpass"), owner.machine.path("asked"));
    fs::write(&script, format!("#!/bin/sh\necho \"$1\" >>{}\necho admin\n", asked.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    // ssh(1) runs this program instead of asking on the terminal.
    let ask = |hop: Hop| hop.env("SSH_ASKPASS", &script).env("SSH_ASKPASS_REQUIRE", "force").run();
    let words = ["--until-reboot", "-o", "PreferredAuthentications=password"];
    let ran = ask(owner.adding_at(&words));
    assert_eq!(ran.code, 0, "{}", ran.stderr());
    assert_eq!(fs::read_to_string(&asked).unwrap().lines().count(), 1);
    owner.assert_runs(&owner.machine.hop());
    let removed = ask(owner.machine.hop().args(["router", "remove", "desk"]));
    assert_eq!(removed.code, 0, "{}", removed.stderr());
    assert_eq!(fs::read_to_string(&asked).unwrap().lines().count(), 2);
}
