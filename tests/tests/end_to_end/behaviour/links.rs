//! What becomes of a job when its connection goes, and how another one is had.

use super::Behaviour;
use hop::config::home::Home;
use hop_tests::{Hop, Ran, Target, VirtualRouter, fixture, length_on_the_wire};
use rustix::process::Signal;
use serde_json::Value;

pub const ALL: &[Behaviour] = &behaviours! {
    Everywhere:
        program_dies_with_its_agent;
    Portable:
        broken_connection_loses_no_output,
        broken_connection_repeats_no_input,
        signals_arrive_once_across_reconnects,
        detached_job_is_listed_and_killed,
        job_of_killed_hop_is_attachable,
        attached_hop_takes_over_the_input,
        job_belongs_to_its_controller,
        detached_exit_code_waits_for_attach,
        job_without_reconnect_dies_with_hop,
        abandoned_program_gets_grace_period,
        dead_agent_is_a_lost_connection,
        reconnecting_stops_at_its_timeout;
};

fn numbers(count: u32) -> String {
    (0..count).map(|i| format!("{i}\n")).collect()
}

/// Starts a program, leaves it, and gives the id of its job.
fn detach(router: &VirtualRouter, name: &str, args: &[&str]) -> String {
    let ran = router.exec_with(&["--detach"], name).args(args).run();
    assert_eq!((ran.stderr(), ran.code), ("", 0));
    ran.stdout().trim_end().to_owned()
}

fn jobs(hop: Hop) -> Vec<Value> {
    let ran = hop.args(["ps", "-r", "router", "--json"]).run();
    assert_eq!(ran.code, 0, "{}", ran.stderr());
    serde_json::from_slice(&ran.stdout).unwrap()
}

fn attach(router: &VirtualRouter, job: &str) -> Ran {
    router.hop().args(["attach", "-r", "router", job]).run()
}

fn broken_connection_loses_no_output(target: Target) {
    let router = VirtualRouter::start(target);
    let proxy = router.proxy();
    let program = fixture(target, "counter");
    let mut running = router.hop().args(["exec", "-r", "proxied"]).arg(program).args(["100", "-"]).start();
    let mut output = String::new();
    for _ in 0..3 {
        for _ in 0..20 {
            output.push_str(&running.line());
        }
        proxy.reset();
    }
    let ran = running.wait();
    output.push_str(ran.stdout());
    assert_eq!((output, ran.code), (numbers(100), 7));
    let broke = "hop: the connection to proxied broke; reconnecting for up to 1m\n";
    assert_eq!(ran.stderr(), broke.repeat(3));
    router.wait_until_forgotten();
    router.assert_serves_on();
}

fn broken_connection_repeats_no_input(target: Target) {
    let router = VirtualRouter::start(target);
    let proxy = router.proxy();
    let content: Vec<u8> = (0..1_000_000u32).flat_map(|i| i.to_le_bytes()).collect();
    let program = fixture(target, "echo-stdin");
    let length = length_on_the_wire(&program);
    // In the midst of what is typed: the program is sent before.
    proxy.cut_after(length + 1_000_000);
    let hop = router.hop().args(["exec", "-r", "proxied"]).arg(program).stdin(content.clone());
    let running = std::thread::spawn(move || hop.run());
    proxy.wait_until_cut();
    proxy.reset();
    let ran = running.join().unwrap();
    assert!(ran.stdout == content, "{} bytes came back: {}", ran.stdout.len(), ran.stderr());
    assert!(ran.stderr().ends_with("4000000\n"), "{}", ran.stderr());
    assert_eq!(ran.code, 0);
    router.wait_until_forgotten();
    router.assert_serves_on();
}

fn signals_arrive_once_across_reconnects(target: Target) {
    let router = VirtualRouter::start(target);
    let proxy = router.proxy();
    let program = fixture(target, "signals");
    let mut running = router.hop().args(["exec", "-r", "proxied"]).arg(program).arg("3").start();
    assert_eq!(running.line(), "ready\n");
    // The first one is lost on its way.
    proxy.cut_after(1);
    running.signal(Signal::INT);
    proxy.wait_until_cut();
    proxy.reset();
    assert_eq!(running.line(), "got interrupt\n");
    // The second one arrives, and nobody here hears of that.
    proxy.cut_after_received(1);
    running.signal(Signal::HUP);
    proxy.wait_until_cut();
    proxy.reset();
    assert_eq!(running.line(), "got hangup\n");
    // If one had come twice, it would be before this one.
    running.signal(Signal::TERM);
    let ran = running.wait();
    assert_eq!((ran.stdout(), ran.code), ("got terminated\n", 3), "{}", ran.stderr());
    router.wait_until_forgotten();
    router.assert_serves_on();
}

fn detached_job_is_listed_and_killed(target: Target) {
    let router = VirtualRouter::start(target);
    let job = detach(&router, "counter", &["1000000", "0"]);
    let listed = jobs(router.hop());
    let [only] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!(only["job"], job);
    assert_eq!((&only["program"], &only["state"]), (&"counter".into(), &"running".into()));
    assert_eq!((&only["controller"], &only["own"]), (&"detached".into(), &true.into()));
    let table = router.hop().args(["ps", "-r", "router"]).run();
    assert!(table.stdout().contains(&format!("{job}  counter")), "{}", table.stdout());
    let ran = router.hop().args(["kill", "-r", "router", &job[..4]]).run();
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("", "", 0));
    let ran = attach(&router, &job);
    assert_eq!(ran.code, 143, "{}", ran.stderr());
    assert!(numbers(100_000).starts_with(ran.stdout()), "{}", ran.stdout());
    router.wait_until_idle();
    let again = attach(&router, &job);
    assert_eq!((again.stdout(), again.code), (ran.stdout(), 143), "anyone who asks gets the same end");
    let listed = jobs(router.hop());
    assert_eq!((&listed[0]["state"], &listed[0]["exit_code"]), (&"ended".into(), &143.into()));
    let ids = router.hop().args(["ps", "-r", "router", "-q"]).run();
    assert_eq!(ids.stdout(), format!("{job}\n"));
    let ran = attach(&router, "0");
    ran.assert_fails(125, "there is no job 0 on router");
    router.assert_serves_on();
}

fn job_of_killed_hop_is_attachable(target: Target) {
    let router = VirtualRouter::start(target);
    let mut running = router.exec("counter").args(["100", "0"]).start();
    assert_eq!(running.line(), "0\n");
    running.signal(Signal::KILL);
    running.wait();
    let job = jobs(router.hop())[0]["job"].as_str().unwrap().to_owned();
    let ran = attach(&router, &job);
    // So little is not acknowledged before it has ended, and what is not acknowledged is kept.
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), (&*numbers(100), "", 7));
    router.wait_until_forgotten();
    router.assert_serves_on();
}

fn attached_hop_takes_over_the_input(target: Target) {
    let router = VirtualRouter::start(target);
    let mut first = router.exec("dialogue").start();
    assert_eq!(first.line(), "ready\n");
    let job = jobs(router.hop())[0]["job"].as_str().unwrap().to_owned();
    let second = router.hop().args(["attach", "-r", "router", &job]).stdin("hello\n").run();
    assert_eq!(second.stdout(), "ready\nyou said hello\nend of input\n");
    assert_eq!(second.code, 0, "{}", second.stderr());
    let ran = first.wait();
    ran.assert_fails(125, "router refused: another connection has the job now");
    router.wait_until_forgotten();
    router.assert_serves_on();
}

fn job_belongs_to_its_controller(target: Target) {
    let router = VirtualRouter::start(target);
    let other = Home::at(&router.path("other"));
    let [own, others] = [router.home(), other].map(|home| home.identity().unwrap().fingerprint());
    router.write_authorized(&format!("{own}\n{others}\n"));
    router.enrol_for(&Home::at(&router.path("other")));
    let job = detach(&router, "counter", &["1000000", "0"]);
    let hop = || Hop::at(&router.path("other"));
    let listed = jobs(hop());
    assert_eq!((&listed[0]["job"], &listed[0]["own"]), (&job.clone().into(), &false.into()));
    for word in ["attach", "kill"] {
        let ran = hop().args([word, "-r", "router", &job]).run();
        ran.assert_fails(125, &format!("the job {job} on router is another controller's"));
    }
    assert_eq!(jobs(router.hop())[0]["state"], "running");
    assert_eq!(router.hop().args(["kill", "-r", "router", "-s", "KILL", &job]).run().code, 0);
    assert_eq!(attach(&router, &job).code, 137);
    router.wait_until_idle();
    router.assert_serves_on();
}

fn detached_exit_code_waits_for_attach(target: Target) {
    let router = VirtualRouter::start(target);
    let status = router.path("status");
    let hop = router.exec_with(&["--detach", "--status-file", status.to_str().unwrap()], "echo-stdin");
    let ran = hop.stdin("nobody reads this").run();
    let job = ran.stdout().trim_end().to_owned();
    let status: Value = serde_json::from_slice(&std::fs::read(status).unwrap()).unwrap();
    assert_eq!((&status["outcome"], &status["job"]), (&"detached".into(), &job.clone().into()));
    let ran = attach(&router, &job);
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("", "0\n", 0));
    let job = detach(&router, "both-outputs", &[]);
    for _ in 0..2 {
        hop_tests::wait_until("all of it is in the logs, also when it was printed before", || {
            let ran = router.hop().args(["logs", "-r", "router", &job]).run();
            assert_eq!(ran.code, 0, "{}", ran.stderr());
            (ran.stdout(), ran.stderr()) == ("out\n", "err\n")
        });
    }
    let ran = attach(&router, &job);
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("out\n", "err\n", 7));
    let job = detach(&router, "exit-code", &["42"]);
    assert_eq!(attach(&router, &job).code, 42);
    router.wait_until_idle();
    router.assert_serves_on();
}

fn job_without_reconnect_dies_with_hop(target: Target) {
    let router = VirtualRouter::start(target);
    let mut running = router.exec_with(&["--reconnect-timeout", "0"], "wait").start();
    assert_eq!(running.line(), "ready\n");
    running.signal(Signal::KILL);
    assert_eq!(running.wait().code, -9);
    router.wait_until_idle();
    router.assert_serves_on();
}

fn abandoned_program_gets_grace_period(target: Target) {
    let router = VirtualRouter::start(target);
    let mark = router.path_there("mark");
    let mut running = router.exec_with(&["--reconnect-timeout", "0"], "mark-term").arg(&mark).start();
    assert_eq!(running.line(), "ready\n");
    running.signal(Signal::KILL);
    running.wait();
    router.wait_until_idle();
    assert!(router.has(&mark), "it was asked to end, and had the time to");
    router.assert_serves_on();
}

fn program_dies_with_its_agent(target: Target) {
    let mut router = VirtualRouter::start(target);
    let mut running = router.exec("pid").start();
    let number = running.line().trim().to_owned();
    let program = router.watch(&number);
    router.signal_agent(Signal::KILL);
    program.wait_until_gone();
    router.restart_agent();
    let ran = running.wait();
    ran.assert_fails_after_progress(125, "the agent of router was restarted, which killed the program");
    router.assert_serves_on();
}

fn dead_agent_is_a_lost_connection(target: Target) {
    let router = VirtualRouter::start(target);
    let mut running = router.exec_with(&["--reconnect-timeout", "0"], "dialogue").start();
    assert_eq!(running.line(), "ready\n");
    router.signal_agent(Signal::KILL);
    running.wait().assert_fails(125, "the connection to router was lost");
}

fn reconnecting_stops_at_its_timeout(target: Target) {
    let router = VirtualRouter::start(target);
    let mut running = router.exec_with(&["--reconnect-timeout", "1s"], "dialogue").start();
    assert_eq!(running.line(), "ready\n");
    router.signal_agent(Signal::KILL);
    let ran = running.wait();
    ran.assert_fails_after_progress(125, "the connection to router was lost");
    assert!(ran.stderr().contains("reconnecting for up to 1s"), "{}", ran.stderr());
}
