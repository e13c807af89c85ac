//! `hop run --watch`: a program that runs again when its source changes.

use std::fs;
use std::path::{Path, PathBuf};

use hop_tests::{Running, wait_until};
use rustix::process::Signal;

use crate::desk::Desk;

/// A program that prints a line and what it embeds, and waits; how it takes SIGTERM is for the test.
const MAIN: &str = r#"package main

import (
	_ "embed"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"example.com/lib"
)

//go:embed data.txt
var data string

func main() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	fmt.Println("VERSION", lib.Name, data)
	if os.Args[1] == "exit" {
		os.Exit(3)
	}
	for got := range signals {
		if os.Args[1] == "stop" || got == syscall.SIGINT {
			fmt.Println("stopping")
			os.Exit(0)
		}
	}
}
"#;

/// A desk with a program of two modules, which is being watched.
struct Watched {
    desk: Desk,
    stderr: PathBuf,
    running: Running,
}

impl Watched {
    fn start(argument: &str) -> Self {
        let desk = Desk::new();
        assert_eq!(desk.run(&["virtual", "up"]).code, 0);
        let app = desk.path("app");
        for directory in [&app, &desk.path("lib")] {
            fs::create_dir(directory).unwrap();
        }
        let declaration = "module example.com/app\n\ngo 1.24\n\nrequire example.com/lib v1.0.0\n\nreplace example.com/lib => ../lib\n";
        fs::write(app.join("go.mod"), declaration).unwrap();
        fs::write(app.join("data.txt"), "data").unwrap();
        fs::write(app.join("main.go"), MAIN.replace("VERSION", "one")).unwrap();
        fs::write(desk.path("lib/go.mod"), "module example.com/lib\n\ngo 1.24\n").unwrap();
        fs::write(desk.path("lib/lib.go"), "package lib\n\nconst Name = \"lib\"\n").unwrap();
        let stderr = desk.path("stderr");
        let hop = desk.hop().args([
            "run",
            "--watch",
            "--grace",
            "300ms",
            "-C",
            app.to_str().unwrap(),
            ".",
            argument,
        ]);
        let running = hop.in_shell(&format!("exec \"$@\" 2>'{}'", stderr.display())).start();
        Self { desk, stderr, running }
    }

    /// Replaces a file as editors do: by a rename.
    fn save(&self, name: &str, content: &str) {
        let path = self.desk.path(name);
        let temporary = path.with_extension("tmp~");
        fs::write(&temporary, content).unwrap();
        fs::rename(temporary, path).unwrap();
    }

    fn says(&self, text: &str) -> bool {
        fs::read_to_string(&self.stderr).unwrap_or_default().contains(text)
    }

    /// One Ctrl-C ends the program and hop, and leaves nothing.
    fn interrupt(self) {
        let Self { desk, stderr, running } = self;
        running.signal(Signal::INT);
        assert_eq!(running.wait().code, 130, "{}", fs::read_to_string(stderr).unwrap());
        let jobs = desk.run(&["ps", "-q"]);
        assert_eq!((jobs.stdout(), jobs.code), ("", 0));
        let kept = desk.run(&["router", "disconnect"]);
        assert_eq!((kept.stdout(), kept.code), ("no connection to virtual-mips is kept\n", 0));
    }
}

#[test]
fn edited_program_replaces_running_one() {
    let mut watched = Watched::start("stop");
    assert_eq!(watched.running.line(), "one lib data\n");
    let edited = |version: &str| MAIN.replace("VERSION", version);
    watched.save("app/main.go", &edited("two"));
    assert_eq!(
        (watched.running.line(), watched.running.line()),
        ("stopping\n".into(), "two lib data\n".into())
    );
    // One that does not build leaves the other one running.
    watched.save("app/main.go", "package main\n\nfunc main() { broken }\n");
    wait_until("the build fails", || watched.says("error: the program was not built: go build failed"));
    watched.save("app/main.go", &edited("three"));
    assert_eq!(
        (watched.running.line(), watched.running.line()),
        ("stopping\n".into(), "three lib data\n".into())
    );
    // What it embeds, and a module beside it, belong to it; a test does not, nor what it writes itself.
    for name in ["app/main_test.go", "app/out.txt"] {
        watched.save(name, "package main\n");
    }
    watched.save("app/data.txt", "other");
    assert_eq!(
        (watched.running.line(), watched.running.line()),
        ("stopping\n".into(), "three lib other\n".into())
    );
    watched.save("lib/lib.go", "package lib\n\nconst Name = \"library\"\n");
    assert_eq!(
        (watched.running.line(), watched.running.line()),
        ("stopping\n".into(), "three library other\n".into())
    );
    let said = fs::read_to_string(&watched.stderr).unwrap();
    assert!(said.contains("hop: lib.go changed: building\n") && !said.contains("out.txt"), "{said}");
    watched.interrupt();
}

#[test]
fn stubborn_program_is_killed_for_its_successor() {
    let mut watched = Watched::start("stay");
    assert_eq!(watched.running.line(), "one lib data\n");
    watched.save("app/main.go", &MAIN.replace("VERSION", "two"));
    assert_eq!(watched.running.line(), "two lib data\n");
    watched.interrupt();
}

#[test]
fn ended_watched_program_waits_for_a_change() {
    let mut watched = Watched::start("exit");
    for version in ["one", "two"] {
        assert_eq!(watched.running.line(), format!("{version} lib data\n"));
        wait_until("the run has ended", || {
            let said = fs::read_to_string(&watched.stderr).unwrap();
            let ended = "hop: the program exited with 3\nhop: waiting for a change";
            said.matches(ended).count() == if version == "one" { 1 } else { 2 }
        });
        // The same again, as one who saves a file to run the program once more.
        let next = if version == "one" { "two" } else { "three" };
        watched.save("app/main.go", &MAIN.replace("VERSION", next));
    }
    assert_eq!(watched.running.line(), "three lib data\n");
    watched.interrupt();
}

#[test]
fn source_that_fails_first_is_waited_for() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["virtual", "up"]).code, 0);
    let app = desk.path("app");
    fs::create_dir(&app).unwrap();
    fs::write(app.join("go.mod"), "module example.com/app\n\ngo 1.24\n").unwrap();
    let imports =
        "package main\n\nimport \"example.com/app/new/part\"\n\nfunc main() { println(part.Name) }\n";
    fs::write(app.join("main.go"), imports).unwrap();
    let stderr = desk.path("stderr");
    let said = |text: &str| fs::read_to_string(&stderr).unwrap_or_default().contains(text);
    let hop = desk.hop().args(["run", "--watch", "-C", app.to_str().unwrap(), "."]);
    let running = hop.in_shell(&format!("exec \"$@\" 2>'{}'", stderr.display())).start();
    wait_until("the build fails", || said("hop: waiting for a change of the source"));
    make(&app.join("new/part"), "part.go", "package part\n\nconst Name = \"at last\"\n");
    wait_until("the program runs", || said("at last\nhop: the program exited with 0\n"));
    running.signal(Signal::INT);
    assert_eq!(running.wait().code, 130);

    let versioned = desk.run(&["run", "--watch", "example.com/probe@latest"]);
    versioned.assert_fails(125, "--watch watches source files that are here");
    assert_eq!(desk.run(&["run", "--watch", "--detach", "."]).code, 125);
}

#[test]
fn watched_program_gets_what_the_router_lacks() {
    let desk = Desk::new();
    assert_eq!(desk.run(&["virtual", "up"]).code, 0);
    let app = desk.path("app");
    let program = "package main\n\nimport \"os\"\n\nfunc main() {\n\
        \t_, zone := os.Stat(os.Getenv(\"TZ\")[1:])\n\
        \t_, certificates := os.Stat(os.Getenv(\"SSL_CERT_FILE\"))\n\
        \tprintln(\"found\", zone == nil, certificates == nil)\n}\n";
    make(&app, "main.go", program);
    fs::write(app.join("go.mod"), "module example.com/app\n\ngo 1.24\n").unwrap();
    fs::write(desk.path("own.pem"), "certificates").unwrap();
    let stderr = desk.path("stderr");
    let hop = desk.hop().args(["run", "--watch", "--send-certs", "-C", app.to_str().unwrap(), "."]);
    let hop = hop.env("TZ", "Europe/Berlin").env("SSL_CERT_FILE", desk.path("own.pem"));
    let running = hop.in_shell(&format!("exec \"$@\" 2>'{}'", stderr.display())).start();
    wait_until("the program runs", || {
        fs::read_to_string(&stderr).unwrap_or_default().contains("found true true\n")
    });
    running.signal(Signal::INT);
    assert_eq!(running.wait().code, 130);
}

/// Makes a directory with a file in it.
fn make(directory: &Path, name: &str, content: &str) {
    fs::create_dir_all(directory).unwrap();
    fs::write(directory.join(name), content).unwrap();
}
