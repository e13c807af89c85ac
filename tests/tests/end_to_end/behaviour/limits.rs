//! A program that does not fit is refused before it is uploaded, with the numbers; one that fits then runs.

use std::thread;

use super::Behaviour;
use hop::client::connection::Connection;
use hop::config::home::Home;
use hop_formats::size::Size;
use hop_tests::{Hop, Options, TIMEOUT, Target, VirtualRouter, fixture, wait_until};
use rustix::process::Signal;

pub const ALL: &[Behaviour] = &behaviours! {
    Everywhere:
        program_larger_than_tmpfs_is_refused,
        program_larger_than_memory_is_refused,
        noexec_tmpfs_is_refused_by_name,
        ninth_job_is_refused,
        stopped_agent_leaves_nothing;
    Routers:
        memory_eater_is_killed_alone;
    Portable:
        program_over_quota_is_refused,
        one_key_leaves_connections_to_others,
        stopped_agent_waits_for_no_reader;
};

fn program_over_quota_is_refused(target: Target) {
    let router = VirtualRouter::start_with(target, &Options { quota: Some(100_000), ..Options::default() });
    let size = fixture(target, "both-outputs").metadata().unwrap().len();
    let ran = router.exec("both-outputs").run();
    ran.assert_fails(125, &format!("the program needs {} and", Size(size)));
    assert!(ran.stderr().contains("has 97.6 KiB left"), "{}", ran.stderr());
    assert!(router.leftovers().is_empty());
}

fn program_larger_than_tmpfs_is_refused(target: Target) {
    let router = VirtualRouter::start_with(target, &Options { tmpfs: Some("size=1m"), ..Options::default() });
    router.exec("both-outputs").run().assert_fails(125, "the program needs ");
    assert!(router.leftovers().is_empty());
}

fn program_larger_than_memory_is_refused(target: Target) {
    // A tmpfs that promises more than there is, as DD-WRT's ramfs does.
    let router = VirtualRouter::start_with(target, &Options { tmpfs: Some("size=1t"), ..Options::default() });
    let huge = super::protocol::refusal_of_a_program_of(&router, 512 << 30);
    let figure = match router.info()["memory_bound_by_promises"] == true {
        true => "of memory more, because its vm.overcommit_memory is 2",
        false => "of memory to spare",
    };
    assert!(huge.contains(figure), "{huge}");
    router.assert_serves_on();
}

fn noexec_tmpfs_is_refused_by_name(target: Target) {
    let router = VirtualRouter::start_with(target, &Options { tmpfs: Some("noexec"), ..Options::default() });
    let ran = router.exec("both-outputs").run();
    ran.assert_fails(125, "is mounted noexec");
    assert!(ran.stderr().contains("hint: start hopd with --dir"), "{}", ran.stderr());
    assert_eq!(router.info()["store_executable"], false);
    assert!(router.leftovers().is_empty());
}

fn memory_eater_is_killed_alone(target: Target) {
    let router = VirtualRouter::start(target);
    let mut other = router.exec("dialogue").start();
    assert_eq!(other.line(), "ready\n");
    for fixture in ["eat-memory", "fill-tmp"] {
        let ran = router.exec(fixture).run();
        // A tmpfs has a limit of its own, which the program sees as an error.
        if ran.stderr().contains("no space left on device") {
            continue;
        }
        assert_eq!(ran.code, 137, "{fixture}: {}", ran.stderr());
        let stderr = ran.stderr();
        assert!(stderr.contains("hop: the router was running out of memory"), "{fixture}: {stderr}");
    }
    assert_eq!(other.wait().code, 0);
    router.assert_serves_on();
}

fn ninth_job_is_refused(target: Target) {
    let router = VirtualRouter::start(target);
    let places = router.info()["max_jobs"].as_u64().unwrap();
    // Each program is promised 4 MiB and more that it does not use.
    let _more = router.allow_overcommit();
    let mut running: Vec<_> = (0..places).map(|_| router.exec("dialogue").start()).collect();
    for hop in &mut running {
        assert_eq!(hop.line(), "ready\n");
    }
    router.exec("both-outputs").run().assert_fails(125, "jobs run already");
    for hop in running {
        assert_eq!(hop.wait().code, 0);
    }
    router.assert_serves_on();
}

fn one_key_leaves_connections_to_others(target: Target) {
    /// Of 16, of which 4 are for keys that have fewer than 2.
    const MAX_OF_A_KEY: usize = 12;
    let router = VirtualRouter::start(target);
    let other = Home::at(&router.path("other"));
    router.enrol_for(&other);
    let identity = router.home().identity().unwrap();
    let keys = [identity.fingerprint(), other.identity().unwrap().fingerprint()];
    router.write_authorized(&format!("{}\n{}\n", keys[0], keys[1]));
    let program = fixture(target, "both-outputs");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let [refused, served] = thread::scope(|scope| {
        runtime.block_on(async {
            let mut connected = Vec::new();
            for _ in 0..MAX_OF_A_KEY {
                connected.push(Connection::open(&router.entry(), &identity, TIMEOUT).await.unwrap());
            }
            let (tell, told) = tokio::sync::oneshot::channel();
            // In a thread, so that the others go on answering when the agent asks whether they are there.
            scope.spawn(|| {
                let of_the_key = router.hop().arg("exec").arg(&program).run();
                let of_the_other = Hop::at(&router.path("other")).arg("exec").arg(&program).run();
                tell.send([of_the_key, of_the_other]).unwrap();
            });
            told.await.unwrap()
        })
    });
    refused.assert_fails(
        125,
        "router refused: this controller has 12 connections, and the last 4 of 16 are for others",
    );
    assert!(refused.stderr().contains("hint: wait until one of them has closed"), "{}", refused.stderr());
    assert_eq!((served.stdout(), served.code), ("out\n", 7), "{}", served.stderr());
    drop(runtime);
    wait_until("there is a place again", || router.hop().arg("info").run().code == 0);
    router.assert_serves_on();
}

fn stopped_agent_leaves_nothing(target: Target) {
    let mut router = VirtualRouter::start(target);
    let mut running = router.exec("wait").start();
    assert_eq!(running.line(), "ready\n");
    router.signal_agent(Signal::TERM);
    let ran = running.wait();
    assert_eq!((ran.stdout(), ran.code), ("", 125));
    assert!(ran.stderr().starts_with("error: hopd was stopped"), "{}", ran.stderr());
    let (code, log) = router.wait_for_agent();
    assert_eq!(code, Some(0), "{log}");
    assert!(!router.has(&router.ram()), "nothing is left");
}

fn stopped_agent_waits_for_no_reader(target: Target) {
    let mut router = VirtualRouter::start(target);
    let mut running = router.exec("flood").arg("1000000").start();
    assert_eq!(running.line(), "/dev/stdout 0\n");
    // Nobody reads on, so the agent has output that it cannot get rid of.
    router.signal_agent(Signal::TERM);
    let (code, log) = router.wait_for_agent();
    assert_eq!(code, Some(0), "{log}");
    assert!(!router.has(&router.ram()), "nothing is left");
    assert_eq!(running.wait().code, 125);
}
