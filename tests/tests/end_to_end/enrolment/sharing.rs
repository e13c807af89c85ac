//! Several controllers on one router.

use hop::config::inventory::Inventory;
use hop_tests::Hop;

use super::owner::Owner;
use crate::plan::Case;

pub const ALL: &[Case] = &cases![second_controller_joins_and_first_leaves, second_name_is_removed_too,];

fn second_controller_joins_and_first_leaves() {
    let owner = Owner::of("dir-505");
    let before = owner.files();
    owner.assert_added(&["--install"]);
    let home = owner.machine.path("second");
    let second = || Hop::at(&home);
    let key = second().arg("key").run();
    let at = owner.machine.machine().agent_address();
    let pinned = owner.entry().unwrap().entry.fingerprint.to_string();
    let words = ["router", "add", "desk", "--agent-address", &at, "--fingerprint", &pinned];
    second().args(words).run().assert_fails(125, "does not know this controller's key");

    // A list that was edited by hand.
    owner.sh("printf %s \"$(cat /etc/hopd/authorized)\" >/tmp/list && cat /tmp/list >/etc/hopd/authorized; rm /tmp/list");
    let ran = owner.machine.hop().args(["router", "authorize", "desk", key.stdout().trim(), "second"]).run();
    assert_eq!(ran.stdout(), format!("{} may use desk\n", key.stdout().trim()), "{}", ran.stderr());
    assert!(ran.stderr().contains(&words.join(" ")), "it says what to type there: {}", ran.stderr());
    assert_eq!(second().args(words).run().code, 0);
    owner.assert_runs(&second());
    owner.assert_runs(&owner.machine.hop());
    let list = owner.sh("ls -l /etc/hopd/authorized; cat /etc/hopd/authorized");
    assert!(list.starts_with("-rw-------") && list.lines().count() == 3, "{list}");

    // The agent gets another key while it runs. One that was cut off before the exchange goes on with the key that was made;
    // one that was cut off after it has both keys in the inventory.
    let make = "/usr/sbin/hopd --fingerprint --key /etc/hopd/key.next";
    let assert_rekeyed = |renewed: &str| {
        let rekeyed = owner.router("rekey");
        assert_eq!(rekeyed.stdout(), format!("desk has the key {renewed}\n"), "{}", rekeyed.stderr());
        let entry = owner.entry().unwrap().entry;
        assert_eq!((entry.fingerprint.to_string(), entry.pinned().len()), (renewed.to_owned(), 1));
        owner.assert_runs(&owner.machine.hop());
    };
    assert_rekeyed(owner.sh(make).trim());
    let renewed = owner.sh(&format!("{make} && mv /etc/hopd/key.next /etc/hopd/key")).trim().to_owned();
    let mut router = owner.entry().unwrap();
    router.entry.enrolment.as_mut().unwrap().next_fingerprint = renewed.parse().ok();
    Inventory::new(&owner.machine.home()).put(&router).unwrap();
    owner.assert_runs(&owner.machine.hop());
    assert_rekeyed(&renewed);
    second().args(["info", "-r", "desk"]).run().assert_fails(125, "has another key than the enrolled one");
    let words = ["router", "add", "desk", "--agent-address", &at, "--fingerprint", &renewed];
    assert_eq!(second().args(words).run().code, 0);

    // A revoked controller loses access at once, and hop does not revoke its own key or an unknown one.
    let me = owner.machine.hop().arg("key").run();
    let revoke = |words: &[&str]| owner.machine.hop().args(["router", "revoke", "desk"]).args(words).run();
    revoke(&[me.stdout().trim()]).assert_fails(125, "the key of this controller");
    revoke(&["third"]).assert_fails(125, "no key on the router's list");
    let revoked = revoke(&["second"]);
    assert_eq!(revoked.stdout(), format!("{} is revoked on desk\n", key.stdout().trim()));
    second().args(["info", "-r", "desk"]).run().assert_fails(125, "does not know this controller's key");
    owner.assert_runs(&owner.machine.hop());
    let ran = owner.machine.hop().args(["router", "authorize", "desk", key.stdout().trim(), "second"]).run();
    assert_eq!(ran.code, 0, "{}", ran.stderr());

    let bench = owner
        .machine
        .hop()
        .args(["router", "add", "bench"])
        .args(owner.login())
        .args(["--agent-address", &at])
        .run();
    assert_eq!(bench.code, 0, "{}", bench.stderr());
    let removed = owner.router("remove");
    assert!(removed.stdout().contains("another controller uses it"), "{}", removed.stdout());
    assert!(removed.stderr().contains("bench: was another name of it"), "{}", removed.stderr());
    owner.assert_runs(&second());
    second().args(["router", "remove", "desk"]).run().assert_fails(125, "was not enrolled over ssh");

    // A controller with the login can join the agent, and remove it for all.
    owner.assert_added(&[]);
    assert_eq!(owner.machine.hop().args(["router", "remove", "desk", "--all"]).run().code, 0);
    owner.assert_nothing_left(&before);
    assert_eq!(second().args(["info", "-r", "desk"]).run().code, 125);
}

fn second_name_is_removed_too() {
    let owner = Owner::of("dir-505");
    owner.assert_added(&["--until-reboot"]);
    let at = owner.machine.machine().agent_address();
    let bench = owner
        .machine
        .hop()
        .args(["router", "add", "bench"])
        .args(owner.login())
        .args(["--agent-address", &at])
        .run();
    assert_eq!(bench.code, 0, "{}", bench.stderr());
    let removed = owner.router("remove");
    assert!(removed.stderr().contains("bench: was another name of it"), "{}", removed.stderr());
    let list = owner.machine.hop().args(["router", "list", "--json"]).run();
    assert_eq!(list.stdout(), "[]\n");
}
