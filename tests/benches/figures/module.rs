//! A Go module whose tests run on the router: by Hop, and by a wrapper of ssh and scp as people write one.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use tempfile::TempDir;

use crate::bench_router::BenchRouter;
use crate::measure::of;
use crate::rows::{Sample, Unit, Way};

/// Packages in it, each with a test that reads a file of its own.
const PACKAGES: usize = 20;

/// What people write: it copies the test and its data, runs it, and takes both away again. SSH and SCP are put in.
const WRAPPER: &str = "#!/bin/sh
binary=$1 name=${1##*/}
shift
SCP -O -q -r \"$binary\" testdata root@127.0.0.1:/tmp/ &&
    SSH root@127.0.0.1 \"cd /tmp && ./$name $*; code=\\$?; rm -rf $name testdata; exit \\$code\"
";

/// The module, in a directory of its own.
struct Module(TempDir);

impl Module {
    fn new() -> Self {
        let module = Self(TempDir::new().unwrap());
        let write = |path: &str, text: &str| {
            let path = module.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("go.mod", "module example.com/measured\n\ngo 1.25\n");
        for number in 0..PACKAGES {
            let package = format!("p{number:02}");
            write(&format!("{package}/testdata/words"), &format!("word{number} ").repeat(100 + number));
            write(
                &format!("{package}/count.go"),
                &format!(
                    "package {package}\n\nimport \"strings\"\n\n\
                     // Count counts words.\nfunc Count(text string) int {{ return len(strings.Fields(text)) }}\n"
                ),
            );
            write(
                &format!("{package}/count_test.go"),
                &format!(
                    "package {package}\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\n\
                     func TestCount(t *testing.T) {{\n\
                     \ttext, err := os.ReadFile(\"testdata/words\")\n\
                     \tif n := Count(string(text)); err != nil || n != {} {{\n\
                     \t\tt.Errorf(\"%d, %v\", n, err)\n\t}}\n}}\n",
                    100 + number
                ),
            );
        }
        module
    }

    /// Runs all tests by `exec`, so many at a time.
    fn test(&self, exec: &str, at_a_time: &str, bench: &BenchRouter) {
        let mut go = Command::new("go");
        go.args(["test", "-count=1", "-p", at_a_time, "-exec", exec, "./..."])
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        go.envs([("CGO_ENABLED", "0"), ("GOOS", "linux"), ("GOARCH", "mips"), ("GOMIPS", "softfloat")]);
        let ran = go.env("HOP_HOME", bench.home()).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
        assert_eq!(said.lines().filter(|line| line.starts_with("ok ")).count(), PACKAGES, "{said}");
    }

    fn wrapper(&self, bench: &BenchRouter) -> PathBuf {
        let place = self.0.path().join("wrapper");
        let text =
            WRAPPER.replace("SCP", &bench.words("scp", "-P")).replace("SSH", &bench.words("ssh", "-p"));
        fs::write(&place, text).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
        place
    }
}

/// All tests of a module that the router has never seen.
pub fn measure(bench: &mut BenchRouter, way: Way, runs: usize) -> Vec<Sample> {
    let one = |_| {
        let module = Module::new();
        // Built before.
        module.test("true", "2", bench);
        let (exec, at_a_time) = match way {
            Way::Hop => {
                bench.fresh_agent();
                (format!("{} exec --go", bench.hop_file().display()), "2")
            }
            // Two at a time would be in each other's way there.
            _ => (module.wrapper(bench).display().to_string(), "1"),
        };
        let mut wall = 0.0;
        let cost = bench.cost(|| {
            let begun = Instant::now();
            module.test(&exec, at_a_time, bench);
            wall = begun.elapsed().as_secs_f64();
        });
        [of(cost), vec![(Unit::Wall, wall)]].concat()
    };
    (0..runs).map(one).collect()
}
