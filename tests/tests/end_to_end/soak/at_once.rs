//! Many runs at the same time: each reports the exit code of its own program, or why the agent has refused it.

use std::collections::BTreeMap;
use std::thread;

use hop_tests::{Target, VirtualRouter, fixture};
use serde_json::Value;

use super::figures::Figures;

/// Jobs that an agent has at a time.
const PLACES: usize = 8;

/// Runs that come at once.
const CROWD: i32 = 50;

/// Times that they come.
const CROWDS: u32 = 3;

/// What an agent may ever have in RAM, in kB, its own file included: what is never given to programs.
const PEAK: u64 = 8 * 1024;

/// Why the agent may refuse a run of a crowd. Any other failure is an error: a connection that breaks, or one that the
/// agent does not answer.
const REFUSALS: [&str; 5] = ["too_many_jobs", "too_many_connections", "no_memory", "no_promise", "no_space"];

/// As many programs as the agent admits start at once, and all of them run at the same time.
pub fn eight(target: Target, figures: &Figures) {
    let router = VirtualRouter::start(target);
    let program = fixture(target, "dialogue");
    let hop = || router.hop().args(["exec", "-r", "router"]).arg(&program);
    // The kernel commits 4 MiB and more to each, which it does not use.
    let _more = router.allow_overcommit();
    let mut running: Vec<_> = (0..PLACES).map(|_| hop().start()).collect();
    for hop in &mut running {
        assert_eq!(hop.line(), "ready\n");
    }
    let held = router.footprint();
    for hop in running {
        let ran = hop.wait();
        assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("end of input\n", "", 0));
    }
    router.assert_serves_on();
    let after = router.footprint();
    assert!(after.peak <= PEAK, "{after:?}");
    figures.add("8 at once: memory of the agent meanwhile", format!("{} kB", held.memory));
    figures.add("8 at once: memory of the agent afterwards", format!("{} kB", after.memory));
    figures.add("8 at once: the most that it had in RAM", format!("{} kB", after.peak));
}

/// Starts many more runs than the agent admits jobs and connections.
pub fn fifty(target: Target, figures: &Figures) {
    let router = VirtualRouter::start(target);
    let program = fixture(target, "exit-code");
    // The kernel commits memory to a program when Go maps its heap, and eight programs start before that.
    let _more = router.allow_overcommit();
    let one = |number: i32| {
        let status_file = router.path(&format!("status-{number}"));
        // An emulated CPU may need seconds for fifty handshakes, and this test checks the answers, not their speed.
        let hop = router.hop().args(["exec", "-r", "router", "--connect-timeout", "1m"]);
        let hop = hop.arg("--status-file").arg(&status_file);
        let ran = hop.arg(&program).arg(number.to_string()).run();
        let status: Value = serde_json::from_slice(&std::fs::read(status_file).unwrap()).unwrap();
        if ran.code == number {
            assert_eq!((ran.stderr(), &status["exit_code"]), ("", &number.into()), "{status}");
            return "exited".to_owned();
        }
        let reason = status["reason"].as_str().unwrap();
        ran.assert_fails(125, "error: router refused: ");
        assert!(REFUSALS.contains(&reason), "{}", ran.stderr());
        reason.to_owned()
    };
    for crowd in 1..=CROWDS {
        let mut ends = BTreeMap::<String, u32>::new();
        thread::scope(|scope| {
            let all: Vec<_> = (0..CROWD).map(|number| scope.spawn(move || one(number))).collect();
            for end in all {
                *ends.entry(end.join().unwrap()).or_default() += 1;
            }
        });
        assert!(ends.contains_key("exited"), "{ends:?}");
        router.wait_until_idle();
        router.assert_serves_on();
        let after = router.footprint();
        assert_eq!(after.children, 0, "no process is left");
        assert!(after.peak <= PEAK, "{after:?}");
        let ends: Vec<_> = ends.iter().map(|(end, count)| format!("{count} {end}")).collect();
        figures.add(format!("50 at once: what became of crowd {crowd}"), ends.join(", "));
        figures.add("50 at once: memory of the agent afterwards", format!("{} kB", after.memory));
        figures.add("50 at once: the most that it had in RAM", format!("{} kB", after.peak));
    }
}
