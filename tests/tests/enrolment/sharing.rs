//! Several controllers on one router.

use hop_tests::Hop;

use crate::owner::Owner;

#[test]
fn a_second_controller_is_let_in_and_the_first_can_leave() {
    let owner = Owner::of("dir-505");
    let before = owner.files();
    owner.assert_added(&["--install"]);
    let home = owner.machine.path("second");
    let second = || Hop::at(&home);
    let key = second().arg("key").run();
    let at = owner.machine.machine().agent_address();
    let pinned = owner.entry().unwrap().entry.fingerprint.to_string();
    let words = ["router", "add", "desk", "--at", &at, "--fingerprint", &pinned];
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

    let bench =
        owner.machine.hop().args(["router", "add", "bench"]).args(owner.login()).args(["--at", &at]).run();
    assert_eq!(bench.code, 0, "{}", bench.stderr());
    let removed = owner.router("remove");
    assert!(removed.stdout().contains("another controller uses it"), "{}", removed.stdout());
    assert!(removed.stderr().contains("bench: was another name of it"), "{}", removed.stderr());
    owner.assert_runs(&second());
    second().args(["router", "remove", "desk"]).run().assert_fails(125, "was not enrolled over ssh");

    // Whoever has the login can join what is there, and take it off for all.
    owner.assert_added(&[]);
    assert_eq!(owner.machine.hop().args(["router", "remove", "desk", "--all"]).run().code, 0);
    owner.assert_nothing_left(&before);
    assert_eq!(second().args(["info", "-r", "desk"]).run().code, 125);
}

#[test]
fn the_other_name_of_a_router_goes_with_it() {
    let owner = Owner::of("dir-505");
    owner.assert_added(&["--until-reboot"]);
    let at = owner.machine.machine().agent_address();
    let bench =
        owner.machine.hop().args(["router", "add", "bench"]).args(owner.login()).args(["--at", &at]).run();
    assert_eq!(bench.code, 0, "{}", bench.stderr());
    let removed = owner.router("remove");
    assert!(removed.stderr().contains("bench: was another name of it"), "{}", removed.stderr());
    let list = owner.machine.hop().args(["router", "list", "--json"]).run();
    assert_eq!(list.stdout(), "[]\n");
}
