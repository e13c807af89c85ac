//! What becomes of a connection when the command that made it has ended, and what others have of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::Behaviour;
use hop_tests::{Hop, Process, Ran, Running, Target, VirtualRouter, dist, fixture, wait_until};
use rustix::process::{Pid, Signal, kill_process};

pub const ALL: &[Behaviour] = &behaviours! {
    Routers:
        rebooted_router_is_reconnected;
    Portable:
        later_commands_use_the_kept_connection,
        idle_kept_connection_is_closed,
        simultaneous_commands_share_one_connection,
        full_master_makes_commands_connect_directly,
        closing_waits_for_running_commands,
        killed_master_is_replaced,
        master_exits_with_its_connection,
        dead_link_is_noticed_in_use,
        dead_link_is_noticed_when_idle,
        stopped_master_is_bypassed,
        revoked_key_loses_its_kept_connection,
        master_changes_no_error,
        unsafe_directory_keeps_no_connection,
        master_inherits_nothing_of_its_command;
    Here:
        slow_reader_slows_only_its_program;
};

/// Long enough for everything here. No test waits until it is over.
const LONG: &str = "10m";

/// A command at the near end of a proxy, which leaves its connection.
fn keeping(router: &VirtualRouter, command: &str) -> Hop {
    router.hop().args([command, "-r", "proxied", "--keep-connection", LONG])
}

/// One that does not say what shall become of its connection.
fn unkept(router: &VirtualRouter, command: &str) -> Hop {
    router.hop().env("HOP_KEEP_CONNECTION", "").args([command, "-r", "proxied"])
}

#[track_caller]
fn succeeds(ran: Ran) {
    assert_eq!((ran.stderr(), ran.code), ("", 0));
}

fn disconnect(router: &VirtualRouter) -> Ran {
    router.hop().args(["router", "disconnect", "proxied"]).run()
}

/// A program that waits for words, after it has started.
fn dialogue(router: &VirtualRouter, hop: Hop) -> Running {
    let mut running = hop.arg(fixture(router.target(), "dialogue")).start();
    assert_eq!(running.line(), "ready\n");
    running
}

/// The one master that there is.
#[track_caller]
fn master(router: &VirtualRouter) -> Process {
    let masters = router.masters();
    let [only] = masters[..] else { panic!("{masters:?}") };
    Process::open(only)
}

fn signal(process: u32, signal: Signal) {
    kill_process(Pid::from_raw(process.try_into().unwrap()).unwrap(), signal).unwrap();
}

fn later_commands_use_the_kept_connection(target: Target) {
    let router = VirtualRouter::start(target);
    let proxy = router.proxy();
    let program = fixture(target, "both-outputs");
    let ran = keeping(&router, "exec").arg(&program).run();
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("out\n", "err\n", 7));
    for _ in 0..3 {
        let ran = unkept(&router, "exec").arg(&program).run();
        assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("out\n", "err\n", 7));
    }
    succeeds(unkept(&router, "info").run());
    succeeds(unkept(&router, "ps").run());
    succeeds(unkept(&router, "info").args(["--keep-connection", "1m"]).run());
    assert_eq!((proxy.connections(), router.masters().len()), (1, 1));
    // Nought is for who wants none of it.
    succeeds(unkept(&router, "info").args(["--keep-connection", "0s"]).run());
    assert_eq!((proxy.connections(), router.masters().len()), (2, 1));
    let master = master(&router);
    assert_eq!(disconnect(&router).stdout(), "the connection to proxied is closed\n");
    master.wait_until_gone();
    assert_eq!(disconnect(&router).stdout(), "no connection to proxied is kept\n");
    succeeds(unkept(&router, "info").run());
    assert_eq!((proxy.connections(), router.masters().len()), (3, 0));
    router.assert_serves_on();
}

fn idle_kept_connection_is_closed(target: Target) {
    let router = VirtualRouter::start(target);
    let proxy = router.proxy();
    let running =
        dialogue(&router, router.hop().args(["exec", "-r", "proxied"]).env("HOP_KEEP_CONNECTION", "1ms"));
    let master = master(&router);
    assert_eq!(running.wait().code, 0);
    master.wait_until_gone();
    succeeds(unkept(&router, "info").run());
    assert_eq!(proxy.connections(), 2);
    router.assert_serves_on();
}

fn simultaneous_commands_share_one_connection(target: Target) {
    let router = VirtualRouter::start(target);
    let proxy = router.proxy();
    let begun: Vec<_> = (0..6).map(|_| keeping(&router, "info").start()).collect();
    for running in begun {
        assert_eq!(running.wait().code, 0);
    }
    assert_eq!((proxy.connections(), router.masters().len()), (1, 1));
    succeeds(disconnect(&router));
}

fn full_master_makes_commands_connect_directly(target: Target) {
    let router = VirtualRouter::start(target);
    let proxy = router.proxy();
    // Each program is promised 4 MiB and more that it does not use.
    let _more = router.allow_overcommit();
    let running: Vec<_> = (0..8).map(|_| dialogue(&router, keeping(&router, "exec"))).collect();
    assert_eq!(proxy.connections(), 1);
    succeeds(keeping(&router, "info").run());
    succeeds(unkept(&router, "info").run());
    assert_eq!((proxy.connections(), router.masters().len()), (3, 1));
    for running in running {
        assert_eq!(running.wait().code, 0);
    }
    succeeds(unkept(&router, "info").run());
    assert_eq!(proxy.connections(), 3);
    router.wait_until_forgotten();
    router.assert_serves_on();
}

fn closing_waits_for_running_commands(target: Target) {
    let router = VirtualRouter::start(target);
    let proxy = router.proxy();
    let running = dialogue(&router, keeping(&router, "exec"));
    let master = master(&router);
    let said = "the connection to proxied closes once the command that uses it has finished\n";
    assert_eq!(disconnect(&router).stdout(), said);
    assert_eq!(disconnect(&router).stdout(), "no connection to proxied is kept\n");
    succeeds(unkept(&router, "info").run());
    assert_eq!(proxy.connections(), 2);
    let ran = running.wait();
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("end of input\n", "", 0));
    master.wait_until_gone();
    router.assert_serves_on();
}

fn killed_master_is_replaced(target: Target) {
    let router = VirtualRouter::start(target);
    let proxy = router.proxy();
    let program = fixture(target, "counter");
    let mut running = keeping(&router, "exec").arg(program).args(["100", "-"]).start();
    let mut output = String::new();
    for _ in 0..2 {
        output.push_str(&running.line());
        let [number] = router.masters()[..] else { panic!("there is one") };
        let master = Process::open(number);
        rustix::process::kill_process(rustix::process::Pid::from_raw(number as i32).unwrap(), Signal::KILL)
            .unwrap();
        master.wait_until_gone();
        // Its socket is still there, and nobody listens.
        wait_until("the command has come back", || proxy.connections() > 1 && !router.masters().is_empty());
    }
    let ran = running.wait();
    output.push_str(ran.stdout());
    assert_eq!((output, ran.code), ((0..100).map(|i| format!("{i}\n")).collect(), 7));
    let broke = "hop: the connection to proxied broke; reconnecting for up to 1m\n";
    assert_eq!(ran.stderr(), broke.repeat(2));
    assert_eq!(proxy.connections(), 3);
    router.wait_until_forgotten();
    router.assert_serves_on();
}

fn master_exits_with_its_connection(target: Target) {
    let mut router = VirtualRouter::start(target);
    let proxy = router.proxy();
    succeeds(keeping(&router, "info").run());
    let first = master(&router);
    proxy.reset();
    first.wait_until_gone();
    succeeds(keeping(&router, "info").run());
    let second = master(&router);
    router.signal_agent(Signal::KILL);
    second.wait_until_gone();
    router.restart_agent();
    succeeds(keeping(&router, "info").run());
    assert_eq!((proxy.connections(), router.masters().len()), (3, 1));
    router.assert_serves_on();
}

fn rebooted_router_is_reconnected(target: Target) {
    let mut router = VirtualRouter::start(target);
    let running = dialogue(&router, router.exec_with(&["--keep-connection", LONG], "dialogue"));
    let master = master(&router);
    router.power_cycle();
    let ran = running.wait();
    ran.assert_fails_after_progress(125, "router was rebooted while the program ran");
    master.wait_until_gone();
    let ran = router.exec_with(&["--keep-connection", LONG], "both-outputs").run();
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("out\n", "err\n", 7));
    router.assert_serves_on();
}

fn dead_link_is_noticed_in_use(target: Target) {
    let router = VirtualRouter::start(target);
    let proxy = router.proxy();
    let program = fixture(target, "counter");
    let mut running = keeping(&router, "exec")
        .args(["--reconnect-timeout", "0"])
        .arg(program)
        .args(["1000000", "0"])
        .start();
    assert_eq!(running.line(), "0\n");
    let master = master(&router);
    proxy.cut();
    let ran = running.wait();
    assert_eq!(ran.code, 125, "{}", ran.stderr());
    assert!(ran.stderr().contains("the connection to proxied was lost"), "{}", ran.stderr());
    master.wait_until_gone();
    proxy.mend();
    router.wait_until_idle();
    router.assert_serves_on();
}

fn dead_link_is_noticed_when_idle(target: Target) {
    let router = VirtualRouter::start(target);
    let proxy = router.proxy();
    succeeds(keeping(&router, "info").run());
    let master = master(&router);
    proxy.cut();
    master.wait_until_gone();
    proxy.mend();
    router.assert_serves_on();
}

fn stopped_master_is_bypassed(target: Target) {
    let router = VirtualRouter::start(target);
    let proxy = router.proxy();
    succeeds(keeping(&router, "info").run());
    let [number] = router.masters()[..] else { panic!("there is one") };
    signal(number, Signal::STOP);
    succeeds(unkept(&router, "info").run());
    succeeds(keeping(&router, "info").run());
    assert_eq!(proxy.connections(), 3);
    signal(number, Signal::CONT);
    succeeds(unkept(&router, "info").run());
    assert_eq!(proxy.connections(), 3);
}

fn revoked_key_loses_its_kept_connection(target: Target) {
    let router = VirtualRouter::start(target);
    let own = router.home().identity().unwrap().fingerprint();
    succeeds(router.hop().args(["info", "-r", "router", "--keep-connection", LONG]).run());
    router.write_authorized("");
    for time in ["", LONG] {
        let hop = router.exec("both-outputs").env("HOP_KEEP_CONNECTION", time);
        hop.run().assert_fails(125, &format!("router does not know this controller's key {own}"));
    }
    router.write_authorized(&format!("{own}\n"));
    router.assert_serves_on();
}

fn master_changes_no_error(target: Target) {
    let router = VirtualRouter::start(target);
    let other = format!("SHA256:{}", "0".repeat(64)).parse().unwrap();
    router.enrol("changed", &router.address, other);
    router.enrol("nobody", "127.0.0.1:1", router.fingerprint);
    let said = |router_name: &str, time: &str| {
        let hop = router.hop().args(["info", "-r", router_name, "--keep-connection", time]);
        let ran = hop.run();
        assert_eq!((ran.stdout(), ran.code), ("", 125));
        ran.stderr().to_owned()
    };
    for name in ["changed", "nobody"] {
        assert_eq!(said(name, LONG), said(name, "0s"));
    }
    // Another key, another place: what is kept for the one is nothing to the other.
    succeeds(router.hop().args(["info", "-r", "router", "--keep-connection", LONG]).run());
    router.enrol("router", &router.address, other);
    assert!(said("router", LONG).contains("has another key"));
    router.enrol("router", &router.address, router.fingerprint);
    router.assert_serves_on();
}

fn unsafe_directory_keeps_no_connection(target: Target) {
    let router = VirtualRouter::start(target);
    let directory = router.path("home/run");
    fs::create_dir_all(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
    let ran = router.exec_with(&["--keep-connection", LONG], "both-outputs").run();
    assert_eq!((ran.stdout(), ran.code), ("out\n", 7));
    let said = format!(
        "hop: the connection to router is not kept: cannot use {}: others may look into it (mode 0700 is needed)\nerr\n",
        directory.display()
    );
    assert_eq!(ran.stderr(), said);
    assert!(router.masters().is_empty());
}

fn master_inherits_nothing_of_its_command(target: Target) {
    let router = VirtualRouter::start(target);
    let home = router.path("home");
    let mut shell = Command::new("sh");
    // Two more descriptors, one of them the pipe that the test reads to its end.
    shell.args(["-c", "exec \"$0\" \"$@\" 5>&1 6</dev/zero"]).arg(dist("hop"));
    shell.args(["info", "-r", "router", "--keep-connection", LONG]).env("HOP_HOME", &home);
    let ran = Running::start(&mut shell).wait();
    succeeds(ran);
    let [number] = router.masters()[..] else { panic!("there is one") };
    let proc = format!("/proc/{number}");
    let stat = fs::read_to_string(format!("{proc}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!(
        (fields[2], fields[3], fields[4]),
        (&*number.to_string(), &*number.to_string(), "0"),
        "{stat}"
    );
    assert_eq!(fs::read_link(format!("{proc}/cwd")).unwrap(), Path::new("/"));
    for entry in fs::read_dir(format!("{proc}/fd")).unwrap() {
        let entry = entry.unwrap();
        let target = fs::read_link(entry.path()).unwrap().to_string_lossy().into_owned();
        let is_own = target.starts_with("socket:") || target.starts_with("anon_inode:");
        let is_lock = target.ends_with(".lock");
        assert!(is_own || is_lock || target == "/dev/null", "{} is {target}", entry.path().display());
    }
}

fn slow_reader_slows_only_its_program(target: Target) {
    const BLOCKS: u32 = 1600;
    const BLOCK_BYTES: usize = 64 * 1024;
    /// In kB: windows, frames on their way, and what the allocator has of both.
    const HELD: u64 = 4096;
    let router = VirtualRouter::start(target);
    let proxy = router.proxy();
    let mut running = keeping(&router, "exec").arg(fixture(target, "blocks")).arg(BLOCKS.to_string()).start();
    let mut block = vec![0; BLOCK_BYTES];
    let mut expected: Vec<u8> = (0..BLOCK_BYTES).map(|i| i as u8).collect();
    let mut number = None;
    let memory = |number: Option<u32>| -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", number.unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    for index in 0..BLOCKS {
        if index % 400 == 200 {
            let unread = || {
                let ran = unkept(&router, "ps").arg("--json").run();
                let jobs: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
                jobs[0]["unread"].as_u64().unwrap()
            };
            wait_until("the window is full", || {
                unread() == u64::from(hop_proto::limits::OUTPUT_WINDOW_BYTES)
            });
            assert!(memory(number) < HELD, "the master holds {} kB", memory(number));
        }
        running.read(&mut block);
        number = number.or_else(|| router.masters().first().copied());
        expected[..4].copy_from_slice(&index.to_be_bytes());
        assert!(block == expected, "block {index} comes whole, after the one before it");
    }
    let ran = running.wait();
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("", "", 0));
    assert!(memory(number) < HELD, "the master holds {} kB", memory(number));
    assert_eq!(proxy.connections(), 1);
    router.assert_serves_on();
}
