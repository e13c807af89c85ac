//! The files of this machine that a program finds, and where the files that it leaves go.

use std::fs;
use std::path::PathBuf;

use super::Behaviour;
use hop_tests::{Hop, Target, VirtualRouter, fixture};
use serde_json::Value;

pub const ALL: &[Behaviour] = &behaviours! {
    Everywhere:
        inputs_are_where_cp_puts_them,
        time_zone_and_certificates_are_sent;
    Portable:
        impossible_inputs_are_refused,
        attach_fetches_where_run_said,
        required_artifacts_fail_if_missing;
};

/// A file of a time zone (tzfile(5)) that is an hour east, all year, and called TST.
fn zone() -> Vec<u8> {
    let counts = [0u32, 0, 0, 0, 1, 4].map(u32::to_be_bytes).concat();
    [&b"TZif"[..], &[0; 16], &counts, &3600u32.to_be_bytes(), &[0, 0], b"TST\0"].concat()
}

/// A directory with files, and `hop exec` in it with these options.
fn found(router: &VirtualRouter, options: &[&str]) -> (PathBuf, Hop) {
    let place = router.path("here");
    if !place.exists() {
        fs::create_dir_all(place.join("conf/deep")).unwrap();
        for path in ["main.json", "conf/one", "conf/deep/two"] {
            fs::write(place.join(path), path).unwrap();
        }
    }
    let hop = router.hop().current_dir(&place).env("TZ", "UTC").args(["exec", "-r", "router"]).args(options);
    (place, hop.arg(fixture(router.target(), "found")))
}

fn inputs_are_where_cp_puts_them(target: Target) {
    let router = VirtualRouter::start(target);
    let options =
        ["--input", "conf", "--input", "main.json:d/", "--input", "conf/one:other", "--artifact", "made"];
    for user in [&[][..], &["--user", "nobody"]] {
        if !user.is_empty() && target.is_here() {
            continue;
        }
        let (place, hop) = found(&router, &[&options[..], user].concat());
        let ran = hop.run();
        let expected = "conf/deep/two: conf/deep/two\nconf/one: conf/one\nd/main.json: main.json\nother: conf/one\n\
                        zone UTC 0\n";
        assert_eq!((ran.stdout(), ran.stderr(), ran.code), (expected, "", 0));
        assert_eq!(fs::read_to_string(place.join("made")).unwrap(), "made");
    }
    router.assert_serves_on();
}

fn time_zone_and_certificates_are_sent(target: Target) {
    let router = VirtualRouter::start(target);
    let database = router.path("zoneinfo");
    fs::create_dir_all(database.join("Test")).unwrap();
    fs::write(database.join("Test/Zone"), zone()).unwrap();
    let certificates = router.path("ca.pem");
    fs::write(&certificates, "0123456789").unwrap();
    let run = |options: &[&str]| {
        let (_, hop) = found(&router, options);
        let hop = hop.env("TZDIR", &database).env("SSL_CERT_FILE", &certificates).env("TZ", "Test/Zone");
        let ran = hop.run();
        assert_eq!((ran.stderr(), ran.code), ("", 0));
        ran.stdout().to_owned()
    };
    assert_eq!(run(&["-e", "FOUND_ZONE=Test/Zone"]), "zone TST 3600\nloads <nil>\n");
    assert_eq!(run(&["--send-certs", "-e", "TZ=UTC"]), "zone UTC 0\ncertificates 10\n");
    let both = run(&["--send-certs", "--input", "conf/one", "-e", "TZ=:Test/Zone"]);
    assert_eq!(both, "conf/one: conf/one\nzone TST 3600\ncertificates 10\n");
    router.assert_serves_on();
}

fn impossible_inputs_are_refused(target: Target) {
    let router = VirtualRouter::start(target);
    for (input, why) in [
        ("main.json:/etc/config", "none is replaced"),
        ("main.json:../x", "none is replaced"),
        ("main.json:", "nothing behind the colon"),
        ("missing", "cannot read"),
    ] {
        found(&router, &["--input", input]).1.run().assert_fails(125, why);
    }
    router.assert_serves_on();
}

fn attach_fetches_where_run_said(target: Target) {
    let router = VirtualRouter::start(target);
    let (place, hop) = found(&router, &["--detach", "--artifact", "made:results/"]);
    let ran = hop.run();
    assert_eq!((ran.stderr(), ran.code), ("", 0));
    let job = ran.stdout().trim_end().to_owned();
    router.wait_until_idle();
    let elsewhere = router.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let ran = router.hop().current_dir(&elsewhere).args(["attach", "-r", "router", &job]).run();
    assert_eq!((ran.stdout(), ran.stderr(), ran.code), ("zone UTC 0\n", "", 0));
    assert_eq!(fs::read_to_string(place.join("results/made")).unwrap(), "made");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    router.wait_until_forgotten();
    router.assert_serves_on();
}

fn required_artifacts_fail_if_missing(target: Target) {
    let router = VirtualRouter::start(target);
    let status_file = router.path("status.json");
    let run = |options: &[&str]| {
        let options = [options, &["--artifact", "missing", "--artifact", "made"]].concat();
        found(&router, &options).1.run()
    };
    let said = "hop: missing was not fetched: there is no such file\n";
    let ran = run(&[]);
    assert_eq!((ran.stderr(), ran.code), (said, 0));
    let ran = run(&["--require-artifacts", "--status-file", status_file.to_str().unwrap()]);
    let error = "error: the program exited with 0, and --require-artifacts needs what was not fetched\n";
    assert_eq!((ran.stderr(), ran.code), (&*format!("{said}{error}"), 125));
    let status: Value = serde_json::from_slice(&fs::read(status_file).unwrap()).unwrap();
    assert_eq!((&status["outcome"], &status["reason"]), (&"failed".into(), &"artifact_missing".into()));
    assert_eq!(status["exit_code"], 0);
    router.assert_serves_on();
}
