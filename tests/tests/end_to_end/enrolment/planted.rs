//! Files that another user of the router, or the maker of a USB stick, has put where Hop's own would be: no command
//! runs, reads or writes them.

use hop_tests::Ran;

use super::owner::Owner;
use crate::plan::Case;

pub const ALL: &[Case] = &cases![planted_files_on_a_dir_505, planted_files_on_an_f7d7302,];

/// A key that nobody has.
const STRANGER: &str = "SHA256:0000000000000000000000000000000000000000000000000000000000000000";

/// A directory where Hop's would be, all of it owned by `nobody`: a program, a list and a log that are links to a file
/// of root's, a pid file that names an innocent process, which has hopd among its arguments; and a directory that looks
/// as if an enrolment were under way.
const PLANT: &str = "mkdir -m 711 /tmp/hop && cd /tmp/hop
    echo root >/tmp/victim
    printf '#!/bin/sh\\nid -u >>/tmp/ran\\n' >hopd && cp hopd start && chmod 755 hopd start
    for link in authorized authorized.new log settings; do ln -s /tmp/victim $link; done
    sh -c 'sleep 1000; :' /tmp/hop/hopd </dev/null >/dev/null 2>&1 &
    echo $! >pid; cp pid /tmp/innocent
    mkdir -m 700 /tmp/hop-0123456789abcdef && echo 1 >/tmp/hop-0123456789abcdef/guard
    chown -R -h 65534:65534 /tmp/hop /tmp/hop-0123456789abcdef";

/// True if all of it is unchanged.
const UNTOUCHED: &str = "[ ! -e /tmp/ran ] && [ \"$(cat /tmp/victim)\" = root ] && [ -e /proc/$(cat /tmp/innocent) ] &&
    cmp /tmp/innocent /tmp/hop/pid && [ -L /tmp/hop/authorized ] && [ -L /tmp/hop/log ] && [ -x /tmp/hop/hopd ] &&
    [ -f /tmp/hop-0123456789abcdef/guard ]";

/// Removes all of it.
const UPROOT: &str =
    "kill $(cat /tmp/innocent); rm -r /tmp/hop /tmp/hop-0123456789abcdef /tmp/innocent /tmp/victim";

/// Stops the agent, so that other files can be where its directory was.
const END_AGENT: &str = "[ ! -x /etc/init.d/hopd ] || /etc/init.d/hopd stop
    pid=$(cat /tmp/hop/pid 2>/dev/null) && kill $pid; while [ -e /tmp/hop/pid ]; do sleep 1; done; rm -rf /tmp/hop";

impl Owner {
    /// Nothing of what was planted was touched.
    #[track_caller]
    fn assert_untouched(&self) {
        self.sh(UNTOUCHED);
    }

    /// `hop` refused, with the reason, and touched nothing.
    #[track_caller]
    fn assert_refused(&self, ran: &Ran) {
        ran.assert_fails_after_progress(125, "/tmp/hop on root@127.0.0.1 is not root's alone");
        self.assert_untouched();
    }

    /// What each command does with what was planted after this router was enrolled, and the agent had ended.
    fn assert_each_command_refuses(&self) {
        self.sh(END_AGENT);
        self.sh(PLANT);
        self.assert_refused(&self.router("add"));
        let check = self.router("check");
        assert_eq!(check.code, 1, "{}", check.stdout());
        assert!(check.stdout().contains("is not root's alone"), "{}", check.stdout());
        self.assert_untouched();
        self.assert_refused(&self.router("upgrade"));
    }

    /// The last command leaves it alone, takes off what is Hop's, and says so.
    fn assert_remove_leaves_it(&self) {
        let removed = self.router("remove");
        assert_eq!(removed.code, 0, "{}", removed.stderr());
        assert!(removed.stderr().contains("/tmp/hop is not root's alone"), "{}", removed.stderr());
        self.assert_untouched();
        self.sh(UPROOT);
    }
}

fn authorize(owner: &Owner) -> Ran {
    owner.machine.hop().args(["router", "authorize", "desk", STRANGER]).run()
}

/// As far as it is the same on every firmware.
fn planted_in_tmp(owner: &Owner) {
    let before = owner.files();
    owner.sh(PLANT);
    owner.assert_refused(&owner.add(&[]));
    owner.sh(UPROOT);
    owner.assert_nothing_left(&before);

    owner.assert_added(&["--until-reboot"]);
    owner.assert_each_command_refuses();
    owner.assert_refused(&authorize(owner));
    owner.assert_remove_leaves_it();
    owner.assert_nothing_left(&before);
}

fn planted_files_on_a_dir_505() {
    let owner = Owner::of("dir-505");
    planted_in_tmp(&owner);

    // An agent on flash, of which only the directory in /tmp is somebody else's.
    let before = owner.files();
    owner.assert_added(&["--install"]);
    owner.assert_each_command_refuses();
    assert_eq!(authorize(&owner).code, 0, "its list is not in there");
    owner.assert_untouched();
    let all = owner.machine.hop().args(["router", "remove", "desk", "--all"]).run();
    assert!(all.stderr().contains("/tmp/hop is not root's alone"), "{}", all.stderr());
    owner.assert_untouched();
    owner.sh(UPROOT);
    owner.assert_nothing_left(&before);
}

fn planted_files_on_an_f7d7302() {
    let owner = Owner::of("f7d7302");
    let before = owner.files();
    planted_in_tmp(&owner);
    let mode = owner.sh("ls -ld /tmp");
    assert!(mode.starts_with("drwxrwxrwt"), "nobody can rename there what is root's: {mode}");

    // A stick from elsewhere, where its maker was root.
    owner.sh("cd /tmp/mnt/sda1 && mkdir -m 700 hop && cd hop && echo root >/tmp/victim && echo known >key
        printf '#!/bin/sh\\nid -u >>/tmp/ran\\n' >hopd && cp hopd start && chmod 755 hopd start
        for link in authorized settings; do ln -s /tmp/victim $link; done");
    owner.assert_added(&["--until-reboot"]);
    assert_eq!(owner.router("check").code, 0);
    owner.sh("cd /tmp/mnt/sda1/hop && [ -L authorized ] && [ ! -e /tmp/ran ]");
    assert_eq!(owner.router("remove").code, 0);
    owner.sh("cd /tmp/mnt/sda1/hop && [ -L authorized ] && [ ! -e /tmp/ran ] && cp -a . /tmp/stick");

    // Others can write to it, so nothing that boots may be there.
    owner.sh("chmod 777 /tmp/mnt/sda1");
    let ran = owner.add(&["--install"]);
    ran.assert_fails_after_progress(125, "others than root can write to /tmp/mnt/sda1 on root@127.0.0.1");
    owner.sh("chmod 755 /tmp/mnt/sda1");
    owner.assert_added(&["--install"]);
    owner.sh(
        "cd /tmp/mnt/sda1/hop && [ ! -L authorized ] && [ ! -L settings ] && ! cmp -s key /tmp/stick/key &&
        [ \"$(cat /tmp/victim)\" = root ] && [ ! -e /tmp/ran ]",
    );

    // init may run the boot hook again at any time, while other users are active.
    owner.sh(END_AGENT);
    owner.sh("cd /tmp/mnt/sda1/hop && mv start kept && cp /tmp/stick/start . && chown 65534 start
        eval \"$(nvram get rc_startup | sed 's/ &$//')\"
        [ ! -e /tmp/ran ] && [ ! -e /tmp/hop ] && mv kept start && rm -r /tmp/stick /tmp/victim");
    assert_eq!(owner.router("add").code, 0);
    owner.assert_runs(&owner.machine.hop());
    assert_eq!(owner.router("remove").code, 0);
    owner.assert_nothing_left(&before);
}
