//! The virtual router itself, where a fault of it would look like one of Hop.

use crate::plan::{Plan, Set};
use hop_tests::Machine;

/// Calls every applet once, with arguments by which it does a little and ends, and prints those that a signal ended. An applet
/// that would never end says how it is called; those that are not named here end without any arguments.
const EVERY_APPLET: &str = r#"
mkdir -p /tmp/applets/empty && cd /tmp/applets && echo text >file && echo 'begin 644 decoded' >encoded
busybox 2>&1 | sed '1,/^Currently defined functions/d' | tr -d ' \t\n' | tr ',' '\n' >names
for name in $(cat names); do
	case $name in
	'[') set -- 1 = 1 ']' ;;
	'[[') set -- a = a ']]' ;;
	ash | sh) set -- -c 'x=$((6 * 7)); echo ${x#4} $(echo sub)' ;;
	awk) set -- 'BEGIN { split("a b", part); printf "%s %d\n", part[2], length("abc") }' ;;
	brctl) set -- show ;;
	chroot) set -- / /bin/true ;;
	cmp) set -- file file ;;
	cut) set -- -c 1 file ;;
	date) set -- +%s ;;
	df | du | ls | find) set -- . ;;
	expr) set -- 1 + 1 ;;
	flock) set -- file true ;;
	getopt) set -- a -a ;;
	grep | egrep | fgrep) set -- te file ;;
	hexdump | cat | head | less | md5sum | sha256sum | sort | strings | tail | uniq | wc | fsync) set -- file ;;
	install | cp) set -- file copy ;;
	ip) set -- address ;;
	kill) set -- -0 $$ ;;
	killall) set -- no-such-program ;;
	ln) set -- -sf file link ;;
	logger) set -- every applet ;;
	mkdir) set -- -p empty/below ;;
	mkfifo) set -- pipe ;;
	mknod) set -- null c 1 3 ;;
	mkswap) set -- file ;;
	nc) set -- 127.0.0.1 1 ;;
	nice | nohup | time) set -- true ;;
	pgrep | pidof) set -- init ;;
	ping) set -- -c 1 127.0.0.1 ;;
	ping6) set -- -c 1 ::1 ;;
	printf) set -- '%d %s\n' 7 seven ;;
	readlink) set -- -f /tmp ;;
	sed) set -- 's/t\(e\)/\1/' file ;;
	seq) set -- 3 ;;
	sleep | usleep) set -- 0 ;;
	start-stop-daemon) set -- -S -x /bin/true ;;
	su) set -- -c true ;;
	sysctl) set -- vm.swappiness ;;
	tar) set -- cf archive file ;;
	tee) set -- copy ;;
	test) set -- -n text ;;
	timeout) set -- 5 true ;;
	top) set -- -b -n 1 ;;
	touch) set -- file ;;
	tr) set -- a b ;;
	traceroute) set -- -q 1 -m 1 -w 1 127.0.0.1 ;;
	udhcpc) set -- -n -q -t 1 -T 1 -i lo -s /bin/true ;;
	uudecode) set -- -o decoded encoded ;;
	uuencode) set -- file file ;;
	vi) set -- -c q! file ;;
	wget) set -- -O copy http://127.0.0.1:1/ ;;
	which) set -- sh ;;
	# Without a word about how, they would run for ever.
	crond | klogd | ntpd | syslogd | telnetd) set -- --no-such-option ;;
	# Nobody reads what it writes, so it ends by an error.
	yes) busybox yes >/dev/full 2>/dev/null; [ $? -lt 128 ] || echo "yes $?"; continue ;;
	*) set -- ;;
	esac
	busybox $name "$@" </dev/null >/dev/null 2>&1
	code=$?
	[ $code -lt 128 ] || echo "$name $code"
done
wc -l <names
cd / && rm -r /tmp/applets
"#;

/// The lines of its second interrupt controller that wait for levels, as QEMU shows them: 10 and 11, which PCI's are.
const LEVELS_OF_PCI: &str = "elcr=0c";

/// A card that shares a line of edges with another device is forgotten sooner or later, and with it the network.
fn shared_interrupts_reach_all_devices(profile: &str) {
    let machine = Machine::boot(profile);
    let assert_levels = || {
        let said = machine.monitor().human("info pic").unwrap();
        let second = said.lines().find(|line| line.trim_start().starts_with("pic1:"));
        assert!(second.is_some_and(|line| line.contains(LEVELS_OF_PCI)), "{said}");
    };
    assert_levels();
    machine.machine().reset().unwrap();
    assert_levels();
}

/// What dies on a virtual router for how it was built would look like a fault of whatever called it.
fn every_applet_runs(profile: &str) {
    let said = Machine::boot(profile).log_in().sh(EVERY_APPLET);
    let number: u32 = said.trim().parse().unwrap_or_else(|_| panic!("{said}"));
    assert!(number > 90, "it has {number} applets");
}

/// The kernel's own choice is a tenth of it, and then a program gets what it would not get on a real router.
fn memory_reserve_matches_firmware(profile: &str) {
    let machine = Machine::boot(profile);
    machine.wait_for_disk();
    let shell = machine.log_in();
    let vm = |name: &str| shell.sh(&format!("cat /proc/sys/vm/{name}")).trim().to_owned();
    let min_free = match profile {
        "dir-505" => "8192",
        "archer-a6" => "16384",
        _ => "4096",
    };
    assert_eq!(vm("min_free_kbytes"), min_free);
    let is_strict = if profile == "f7d7302" { ("2", "80") } else { ("0", "50") };
    assert_eq!((&*vm("overcommit_memory"), &*vm("overcommit_ratio")), is_strict);
}

/// A test, and the profiles that it is run on.
type Test = (&'static str, fn(&str), &'static [&'static str]);

const ALL: [Test; 3] = [
    ("shared_interrupts_reach_all_devices", shared_interrupts_reach_all_devices, &["rut955", "f7d7302"]),
    // One profile of each firmware.
    ("every_applet_runs", every_applet_runs, &["dir-505", "rut955", "f7d7302"]),
    (
        "memory_reserve_matches_firmware",
        memory_reserve_matches_firmware,
        &["dir-505", "archer-a6", "f7d7302"],
    ),
];

/// Adds the tests.
pub fn plan(plan: &mut Plan) {
    for (name, test, profiles) in ALL {
        for profile in profiles {
            plan.add(Set::Default, "virtual_router", &format!("{profile}::{name}"), move || test(profile));
        }
    }
}
