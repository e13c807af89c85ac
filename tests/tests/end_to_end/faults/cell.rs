//! One cell of the matrix: one fault in one phase.

use hop_tests::Target;

use super::fault::Fault;
use super::phase::Phase;

/// Lets `fault` happen in `phase`, and gives what was seen, in a few words.
pub fn run(target: Target, fault: Fault, phase: Phase) -> String {
    let mut router = fault.router(target);
    let proxy = router.proxy();
    let hop =
        router.hop().args(["exec", "-r", "proxied", "--grace", "1s", "--reconnect-timeout", fault.linger()]);
    let hop = hop.args(["--connect-timeout", fault.connect_timeout()]);

    let (mut running, mut output) = phase.reach(hop, &router, &proxy);
    fault.happen(&mut router, &proxy, &running);
    phase.go_on(&mut running);
    let ran = running.wait();
    output.push_str(ran.stdout());

    let whole = phase.whole_output();
    assert!(whole.starts_with(&output), "the program did not write this: {output}");
    let (end, is_whole) = (fault.end(phase), output == whole && phase.is_fetched(&router));
    let said = ran.stderr();
    assert!(end.is(&ran, phase.own_exit_code(), is_whole), "{end:?}: {}, {is_whole}: {said}", ran.code);

    fault.mend(&router);
    router.wait_until_idle();
    router.wait_until_forgotten();
    for program in ["counter", "dialogue", "leave", "eat-memory"] {
        assert_eq!(router.processes(program), 0, "{program} runs on");
    }
    router.assert_serves_on();
    let lines = output.lines().count();
    if is_whole { format!("{}, all output", ran.code) } else { format!("{}, {lines} lines", ran.code) }
}
