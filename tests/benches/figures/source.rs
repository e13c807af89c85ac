//! The Go programs that are measured: copies of the examples, which can be edited as a developer would.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use hop_tests::root;
use tempfile::TempDir;

/// One of the examples, in a module of its own.
pub struct Source {
    module: TempDir,
    name: &'static str,
    text: String,
}

impl Source {
    /// A copy of an example.
    pub fn of(name: &'static str) -> Self {
        let module = TempDir::new().unwrap();
        let text = fs::read_to_string(root().join(format!("examples/{name}/main.go"))).unwrap();
        fs::create_dir_all(module.path().join("examples").join(name)).unwrap();
        fs::copy(root().join("go.mod"), module.path().join("go.mod")).unwrap();
        let source = Self { module, name, text };
        source.write(&source.text);
        source
    }

    /// The directory in which `go` and `hop` are called.
    pub fn module(&self) -> PathBuf {
        self.module.path().to_owned()
    }

    /// The package, from there.
    pub fn package(&self) -> String {
        format!("./examples/{}", self.name)
    }

    /// One string is another one; each number gives a program that has not been seen.
    pub fn change_a_string(&self, number: usize) {
        self.edit(&[("Hello from", &format!("Greetings, for the {number}th time, from"))]);
    }

    /// A function is added, and called.
    pub fn add_a_function(&self) {
        let function = "\n// initials are the first letters of the words of a path.\n\
             func initials(path string) string {\n\
             \tvar first []byte\n\
             \tfor i := 1; i < len(path); i++ {\n\
             \t\tif path[i-1] == '/' && path[i] != '/' {\n\
             \t\t\tfirst = append(first, path[i])\n\
             \t\t}\n\
             \t}\n\
             \treturn string(first)\n\
             }\n";
        let called = ("r.URL.Path, r.RemoteAddr)", "r.URL.Path, initials(r.RemoteAddr))");
        self.edit(&[called]);
        let edited = fs::read_to_string(self.file()).unwrap();
        self.write(&(edited + function));
    }

    /// Three packages are imported that it did not have, and used.
    pub fn add_three_imports(&self) {
        let used = "func greet(w http.ResponseWriter, r *http.Request) {\n\
             \tif regexp.MustCompile(`^/[a-z]+$`).MatchString(r.URL.Path) {\n\
             \t\ttable := tabwriter.NewWriter(w, 0, 8, 1, ' ', 0)\n\
             \t\tjson.NewEncoder(table).Encode(r.Header)\n\
             \t\ttable.Flush()\n\
             \t}\n";
        self.edit(&[
            ("import (\n", "import (\n\t\"encoding/json\"\n\t\"regexp\"\n\t\"text/tabwriter\"\n"),
            ("func greet(w http.ResponseWriter, r *http.Request) {\n", used),
        ]);
    }

    /// What it embeds makes it this much larger, and does not compress.
    pub fn add_ballast(&mut self, bytes: usize) {
        // xorshift (Marsaglia 2003): the same bytes on every machine.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        let ballast: Vec<u8> = (0..bytes).map(|_| next()).collect();
        fs::write(self.file().with_file_name("ballast"), ballast).unwrap();
        let embedded = "//go:embed ballast\nvar ballast string\n\nfunc greet(";
        let used = "Hello from %s!\\n\", host+ballast[:len(host)%2])";
        self.edit(&[
            ("import (\n", "import (\n\t_ \"embed\"\n"),
            ("func greet(", embedded),
            ("Hello from %s!\\n\", host)", used),
        ]);
        self.text = fs::read_to_string(self.file()).unwrap();
    }

    /// Builds it as `hop run` does, for what is not Hop.
    pub fn build(&self) -> PathBuf {
        let program = self.module.path().join("program");
        let mut go = Command::new("go");
        go.args(["build", "-trimpath", "-ldflags=-s -w", "-o"]).arg(&program).arg(self.package());
        go.envs([("CGO_ENABLED", "0"), ("GOOS", "linux"), ("GOARCH", "mips"), ("GOMIPS", "softfloat")]);
        assert!(go.current_dir(self.module.path()).status().unwrap().success(), "it builds");
        program
    }

    fn file(&self) -> PathBuf {
        self.module.path().join(self.package()).join("main.go")
    }

    fn write(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

    /// Replaces texts of the example, each of which must be there.
    fn edit(&self, replacements: &[(&str, &str)]) {
        let edited = replacements.iter().fold(self.text.clone(), |text, (from, to)| {
            assert!(text.contains(from), "the example has {from:?}");
            text.replace(from, to)
        });
        self.write(&edited);
    }
}
