//! What the firmware around an installed agent does: settings, supervision, log, boot hooks.

use hop_tests::{Target, fixture, wait_until};

use super::owner::Owner;
use crate::plan::Case;

pub const ALL: &[Case] = &cases![uci_settings_of_a_dir_505, boot_hooks_of_an_f7d7302,];

/// Whether the agent's command line has this.
const RUNS_WITH: &str =
    "tr '\\0' ' ' </proc/$(cat /tmp/hop/pid 2>/dev/null)/cmdline 2>/dev/null | grep -q -e ";

/// No process of the service is there for procd to start.
const NO_INSTANCE: &str = "! ubus call service list '{\"name\":\"hopd\"}' | grep -q running";

fn uci_settings_of_a_dir_505() {
    let owner = Owner::of("dir-505");
    let before = owner.files();
    // What somebody has set and never committed, and then removed the file that it was for.
    owner.sh("echo \"hopd.main.listen='0.0.0.0:4671'\" >/tmp/.uci/hopd");
    owner.assert_added(&["--install"]);
    owner.sh("uci set hopd.main.listen=0.0.0.0:4672");
    assert_eq!(owner.router("remove").code, 0);
    owner.assert_nothing_left(&before);
    owner.assert_added(&["--install"]);
    let shell = owner.machine.log_in();
    let log = || owner.sh("logread");
    assert!(log().contains("daemon.info: hopd["), "{}", log());
    assert!(!log().contains("daemon.err: hopd"), "{}", log());

    // A trigger restarts the agent when its settings have changed, the first change included.
    owner.sh("uci set hopd.main.cache_dir=/root/programs; uci commit hopd; reload_config");
    wait_until("it is started with the store", || {
        shell.holds(&format!("{RUNS_WITH} '--cache-dir /root/programs'"))
    });
    owner.assert_runs(&owner.machine.hop());

    // The agent logs an invalid setting once, and keeps running.
    owner.sh("uci set hopd.main.listen=nowhere; uci commit hopd; reload_config");
    let wrong = "hopd: error: /etc/config/hopd: option listen nowhere: invalid socket address syntax";
    wait_until("the setting is refused", || log().contains(wrong));
    owner.assert_runs(&owner.machine.hop());
    owner.sh("/etc/init.d/hopd restart");
    wait_until("procd has nothing to start", || shell.holds(NO_INSTANCE));
    assert_eq!(log().matches(wrong).count(), 2, "{}", log());
    let check = owner.router("check");
    assert_eq!(check.code, 1);
    for said in ["option listen nowhere", "`hop router add desk` starts it"] {
        assert!(check.stdout().contains(said), "{said}: {}", check.stdout());
    }
    owner.router("add").assert_fails_after_progress(125, "does not listen");
    owner.sh("uci set hopd.main.listen=0.0.0.0:4670; uci commit hopd; reload_config");
    owner.wait_for_agent();

    // The file is gone, as after an upgrade that did not keep it.
    owner.sh("mv /usr/sbin/hopd /root; /etc/init.d/hopd restart");
    wait_until("procd has nothing to start", || shell.holds(NO_INSTANCE));
    assert!(log().contains("daemon.err: hopd: error: there is no hopd in /usr/sbin"), "{}", log());
    owner.sh("mv /root/hopd /usr/sbin");
    let check = owner.router("check");
    assert!(check.stdout().contains("the agent does not run"), "{}", check.stdout());
    assert_eq!(owner.router("add").code, 0);
    owner.assert_runs(&owner.machine.hop());
    let check = owner.router("check");
    let wrong: Vec<_> = check.stdout().lines().filter(|line| line.starts_with("WRONG")).collect();
    assert!(
        wrong.len() == 1 && wrong[0].contains("/root/programs would fill the flash"),
        "{}",
        check.stdout()
    );

    // Nobody has made its cache directory, which so may be on a medium that is away.
    let removed = owner.router("remove");
    assert!(removed.code == 1 && removed.stdout().contains("/root/programs"), "{}", removed.stdout());
    owner.assert_nothing_left(&before);
}

fn boot_hooks_of_an_f7d7302() {
    let owner = Owner::of("f7d7302");
    owner.assert_added(&["--install"]);
    owner.reboot();
    owner.wait_for_agent();
    // PID 1 has given the agent what it looks for libraries with, and programs do not see it.
    owner.sh("grep -q LD_LIBRARY_PATH /proc/$(cat /tmp/hop/pid)/environ");
    let target = Target::F7D7302;
    let ran = owner.machine.hop().args(["exec", "-r", "desk"]).arg(fixture(target, "environment")).run();
    let names: Vec<_> = ran.stdout().split('\0').filter_map(|text| text.split('=').next()).collect();
    assert!(names.contains(&"PATH") && !names.iter().any(|name| name.starts_with("LD_")), "{names:?}");

    // Its hooks run again when settings are applied: the agent goes on, and there is no second copy of it in RAM.
    let agent = "cat /tmp/hop/pid; ls -i /tmp/hop/hopd";
    let before = owner.sh(agent);
    owner.sh("nvram set rc_startup=\"$(nvram get rc_startup)
        : >/tmp/hooks-have-run\"; kill -HUP 1");
    let shell = owner.machine.log_in();
    let hooks_have_run =
        "[ -e /tmp/hooks-have-run ] && ! grep -q -e rc_startu[p] -e hop/star[t] /proc/[0-9]*/cmdline";
    wait_until("the hooks have run", || shell.holds(hooks_have_run));
    assert_eq!(owner.sh(agent), before);
    owner.assert_runs(&owner.machine.hop());
}
