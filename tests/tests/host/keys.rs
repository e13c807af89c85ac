//! Keys that come and go, and where an agent listens: an agent of this machine, and in network namespaces.

use std::fs;
use std::path::Path;
use std::process::Command;

use hop::config::home::Home;
use hop::config::inventory::{Entry, Inventory, Router};
use hop_tests::{Hop, Options, Target, VirtualRouter, dist, fixture, wait_until};
use rustix::process::Signal;
use serde_json::Value;

const TARGET: Target = Target::Host;

/// The jobs of the router that a controller sees.
fn jobs(home: &Home, router: &str) -> Vec<Value> {
    let ran = Hop::at(directory(home)).args(["ps", "-r", router, "--json"]).run();
    assert_eq!(ran.code, 0, "{}", ran.stderr());
    serde_json::from_slice(&ran.stdout).unwrap()
}

/// The directory that a home of a test is.
fn directory(home: &Home) -> &Path {
    home.cache().parent().unwrap()
}

fn key_of(home: &Home) -> String {
    home.identity().unwrap().fingerprint().to_string()
}

#[test]
fn revoked_keys_lose_connections_and_jobs() {
    let router = VirtualRouter::start(TARGET);
    let other = Home::at(&router.path("other"));
    router.write_authorized(&format!("{} me\n{} other\n", key_of(&router.home()), key_of(&other)));
    router.enrol_for(&other);
    let hop = || Hop::at(directory(&other));
    let program = fixture(TARGET, "wait");
    let detached = hop().args(["exec", "-r", "router", "--detach"]).arg(&program).run();
    assert_eq!(detached.code, 0, "{}", detached.stderr());
    // A grace is for who may use the router.
    let words = ["exec", "-r", "router", "--grace", "1m", "--reconnect-timeout", "1h"];
    let mut attached = hop().args(words).arg(&program).start();
    assert_eq!(attached.line(), "ready\n");
    let mut own = router.exec("wait").start();
    assert_eq!(own.line(), "ready\n");
    assert_eq!(jobs(&router.home(), "router").len(), 3);

    // A bad line, and an option that no agent knows, are nobody's loss but their own.
    let own_key = key_of(&router.home());
    let restricted = format!("from=\"10.0.0.0/8\" {} other", key_of(&other));
    router.write_authorized(&format!("nonsense\n{restricted}\n{own_key} me\n"));
    wait_until("only the own job is left", || {
        let jobs = jobs(&router.home(), "router");
        jobs.len() == 1 && jobs[0]["own"] == true
    });
    attached.wait().assert_fails_after_progress(125, "does not know this controller's key");
    hop().args(["ps", "-r", "router"]).run().assert_fails(125, "does not know this controller's key");
    let log = fs::read_to_string(router.path("log")).unwrap();
    assert_eq!(log.matches("line 1: its key is not").count(), 1, "said once: {log}");
    assert_eq!(log.matches("line 2: this agent does not know its option from").count(), 1, "{log}");
    own.signal(Signal::TERM);
    assert_eq!(own.wait().code, 128 + 15);
    router.assert_serves_on();
}

#[test]
fn rotation_moves_all_routers() {
    let (first, mut second) = (VirtualRouter::start(TARGET), VirtualRouter::start(TARGET));
    let home = first.home();
    let old = key_of(&home);
    second.write_authorized(&format!("{old} me@desk\n"));
    first.enrol("second", &second.address, second.fingerprint);
    let rotate = |words: &[&str]| first.hop().args(["key", "rotate"]).args(words).run();
    let job = first.exec_with(&["--detach"], "wait").run();
    assert_eq!(job.code, 0, "{}", job.stderr());

    // One router is offline: the key has not changed here, and the other router authorizes both keys.
    second.signal_agent(Signal::TERM);
    let ran = rotate(&[]);
    ran.assert_fails_after_progress(125, "the key rotation is not finished: not on second");
    assert_eq!(key_of(&home), old);
    assert_eq!(jobs(&home, "router").len(), 1, "the router still authorizes the old key");
    let next = directory(&home).join("key.next");
    let kept = fs::read(&next).unwrap();
    second.restart_agent();
    let ran = rotate(&[]);
    assert_eq!(ran.code, 0, "{}", ran.stderr());
    let new = key_of(&home);
    assert_eq!(ran.stdout(), format!("{new}\n"));
    assert_eq!(fs::read(home.key()).unwrap(), kept, "what was begun was finished");
    for (router, name) in [(&first, "test"), (&second, "me@desk")] {
        let list = fs::read_to_string(router.path_there("authorized")).unwrap();
        assert_eq!(list, format!("{new} {name}\n"));
    }
    let listed = jobs(&home, "router");
    assert_eq!((listed.len(), &listed[0]["own"]), (1, &true.into()), "its job is its own");
    let kill = first.hop().args(["kill", "-r", "router", "-s", "KILL", job.stdout().trim()]).run();
    assert_eq!(kill.code, 0, "{}", kill.stderr());

    // Cut off after the new key had become the key: what is left is to take the old one off.
    fs::copy(home.key(), directory(&home).join("key.previous")).unwrap();
    let ran = rotate(&["--skip", "second"]);
    assert_eq!((ran.stdout(), ran.code), (&*format!("{new}\n"), 0), "{}", ran.stderr());
    let left = fs::read_dir(directory(&home)).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("key.")).collect();
    assert_eq!(left, ["key.lock"]);
    first.wait_until_idle();
    first.assert_serves_on();
}

#[test]
fn key_cannot_revoke_other_keys() {
    let router = VirtualRouter::start_with(TARGET, &Options::default());
    let other = Home::at(&router.path("other"));
    let list = format!("{} me\n{} other\n", key_of(&router.home()), key_of(&other));
    router.write_authorized(&list);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let identity = other.identity().unwrap();
        let opened =
            hop::client::connection::Connection::open(&router.entry(), &identity, hop_tests::TIMEOUT).await;
        let (mut connection, _) = opened.unwrap();
        let request = hop_proto::v1::RetirePreviousKeyRequest {};
        connection.client().retire_previous_key(request).await.unwrap();
        for sha256 in [vec![7; 31], Vec::new()] {
            let request = hop_proto::v1::AddNextKeyRequest { sha256 };
            let refused = connection.client().add_next_key(request).await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        }
    });
    assert_eq!(fs::read_to_string(router.path_there("authorized")).unwrap(), list);
}

/// An agent between two networks, the LAN on lan0 and the WAN on wan0; a controller is on both, in a namespace of its own.
/// Says where it is reached: the name of the router, and the exit code of `hop info`.
const TWO_NETWORKS: &str = r#"
set -e
hopd=$1 hop=$2
unshare -n sleep 1000 &
other=$!
trap 'kill $other $agent' EXIT
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do :; done
there() { nsenter -t $other -n "$@"; }
link() {
	ip link add $1 type veth peer name $1-peer netns $other
	ip addr add $2.1/24 dev $1
	ip link set $1 up
	there ip addr add $2.2/24 dev $1-peer
	there ip link set $1-peer up
}
reached() {
	name=$1
	shift
	code=0
	"$@" $hop info -r $name >/dev/null 2>said || code=$?
	echo $name $code
}
ip link set lo up
link lan0 10.1.0
link wan0 10.2.0
echo interface $($hopd --interface-to 10.1.0.2)
mkfifo ready
$hopd --listen 0.0.0.0:4670 --interface lan0 --dir ram --key key --authorized authorized >ready 2>log &
agent=$!
read line <ready
reached lan there
reached wan there
reached loopback
ip addr flush dev lan0
ip addr add 10.9.0.1/24 dev lan0
there ip addr add 10.9.0.2/24 dev lan0-peer
reached moved there
ip link del lan0
link lan0 10.9.0
until there $hop info -r moved >/dev/null 2>&1; do :; done
reached moved there
reached wan there
"#;

#[test]
fn agent_listens_on_interface_and_loopback() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let home = Home::at(&path("home"));
    fs::write(path("authorized"), format!("{}\n", key_of(&home))).unwrap();
    let made = Command::new(dist("hopd-host")).args(["--fingerprint", "--key"]).arg(path("key")).output();
    let fingerprint = String::from_utf8(made.unwrap().stdout).unwrap().trim().parse().unwrap();
    for (name, host) in
        [("lan", "10.1.0.1"), ("wan", "10.2.0.1"), ("loopback", "127.0.0.1"), ("moved", "10.9.0.1")]
    {
        let entry = Entry {
            address: format!("{host}:4670"),
            fingerprint,
            goarch: TARGET.goarch().into(),
            enrolment: None,
            process: None,
        };
        Inventory::new(&home).put(&Router { name: name.into(), entry }).unwrap();
    }
    let script = Command::new("unshare")
        .args(["-rn", "sh", "-c", TWO_NETWORKS, "sh"])
        .args([dist("hopd-host"), dist("hop")])
        .current_dir(directory.path())
        .env("HOP_HOME", path("home"))
        .output()
        .unwrap();
    let log = fs::read_to_string(path("log")).unwrap_or_default();
    let said = String::from_utf8(script.stdout).unwrap();
    let expected = "interface lan0\nlan 0\nwan 125\nloopback 0\nmoved 0\nmoved 0\nwan 125\n";
    assert_eq!(said, expected, "{}{log}", String::from_utf8_lossy(&script.stderr));
    let refused = fs::read_to_string(path("said")).unwrap();
    assert!(refused.contains("wan at 10.2.0.1:4670 cannot be reached"), "{refused}");
}
