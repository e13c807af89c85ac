//! What `go test` and `go run` ask of the program that is named by `-exec`, as a job: arguments that are paths of this machine
//! become paths of the router, and what is written there comes back to where Go looks for it.
//!
//! The contract is in cmd/go (`internal/test/test.go`, `runTestActor`) and in the package testing: the working directory is that
//! of the package; flags have the form `-test.NAME=VALUE`; GOCOVERDIR is set beside `-test.gocoverdir`.
//!
//! **Invariants:** a test finds what it would find here, and what it leaves by its flags is here afterwards, under
//! the name that Go expects.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use hop_proto::output_path;
use serde::{Deserialize, Serialize};

use super::Error;
use super::module::Package;
pub use super::translated::Translated;
use crate::inputs::Input;
use crate::session::artifacts::{Local, Policy, Request};
use crate::transfer::inputs::{Files, HERE, MARK};

/// The directory of the module's files, and that of what Go's flags name.
const MODULE: &str = "module";
const FLAGS: &str = "flags";

/// Flags of a test binary whose value is a file that it writes.
const FILES: [&str; 7] =
    ["blockprofile", "coverprofile", "cpuprofile", "memprofile", "mutexprofile", "testlogfile", "trace"];

/// Those whose value is a directory that it writes, and reads what is there.
const DIRECTORIES: [&str; 2] = ["gocoverdir", "fuzzcachedir"];

/// The one that says where the files of the others go.
const OUTPUT_DIRECTORY: &str = "outputdir";

/// Below that, what a test keeps with T.ArtifactDir.
const ARTIFACTS: &str = "_artifacts";

/// Where a fuzz test writes what has failed, below the directory of its package.
const CORPUS: &str = "testdata/fuzz";

/// The variable that says where a program built with -cover leaves what it counted.
const GOCOVERDIR: &str = "GOCOVERDIR";

/// Bytes of memory of a router on which Go's fuzzer works: a worker of it allocates 100 MiB (internal/fuzz,
/// workerSharedMemSize), which Linux refuses where there is less at all (vm.overcommit_memory, proc(5)).
const FUZZER_BYTES: u64 = 104 << 20;

/// Variables of this machine that a program gets there: what steers Go's runtime, the language, and the time. Others are of
/// this machine or private, and are passed on by name only (`--env`).
const PASSED_ON: [&str; 14] = [
    "CI",
    "GODEBUG",
    "GOGC",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "GOTRACEBACK",
    "GOARCH",
    "GOMIPS",
    "GOOS",
    "GOEXPERIMENT",
    "LANG",
    "LC_ALL",
    "TERM",
    "TZ",
];

/// Where Go called, and with what.
#[derive(Debug)]
pub struct Call {
    /// It is Go that calls, so that the arguments may be those of a test.
    is_of_go: bool,
    /// The working directory, absolute.
    directory: PathBuf,
    /// Arguments of the program.
    args: Vec<OsString>,
    /// Gives the value of a variable of this machine.
    variable: fn(&str) -> Option<OsString>,
    /// Further files to fetch, `PATH[:LOCAL]`: paths below the working directory, with `*` and `?`.
    artifacts: Vec<OsString>,
    /// The user's options for these.
    policy: Policy,
    /// Further files to send, `PATH[:REMOTE]`.
    inputs: Vec<OsString>,
}

impl Call {
    /// The call by which Go started this `hop`.
    ///
    /// # Errors
    /// There is no working directory.
    pub fn of_go(
        args: Vec<OsString>,
        artifacts: Vec<OsString>,
        inputs: Vec<OsString>,
        policy: Policy,
    ) -> Result<Self, Error> {
        let variable = |name: &str| std::env::var_os(name);
        Ok(Self {
            is_of_go: true,
            directory: current_directory()?,
            args,
            variable,
            artifacts,
            policy,
            inputs,
        })
    }

    /// The call of a program that may count its coverage, and else is not concerned with Go.
    ///
    /// # Errors
    /// There is no working directory.
    pub fn for_coverage(args: Vec<OsString>, inputs: Vec<OsString>) -> Result<Self, Error> {
        let variable = |name: &str| std::env::var_os(name).filter(|_| name == GOCOVERDIR);
        let (artifacts, policy) = (Vec::new(), Policy::default());
        Ok(Self {
            is_of_go: false,
            directory: current_directory()?,
            args,
            variable,
            artifacts,
            policy,
            inputs,
        })
    }

    /// Translates it.
    ///
    /// # Errors
    /// The files of the package cannot be read or are too many; [`Error::InvalidPattern`] for an artifact outside the package's directory.
    pub fn translate(&self) -> Result<Translated, Error> {
        let is_flag_of_test = |arg: &OsString| arg.as_bytes().starts_with(b"-test.");
        let is_test = self.is_of_go && self.args.iter().any(is_flag_of_test);
        let package = is_test.then(|| Package::of(&self.directory));
        // By its names: joined to the top of the module, it would end with a slash.
        let names = |package: &Package| [OsStr::new(MODULE)].into_iter().chain(&package.below).collect();
        let start: Option<PathBuf> = package.as_ref().map(names);
        let mut paths = Paths::new(self, start.clone().unwrap_or_default());
        let mut translated = Translated { env: self.environment(), ..Translated::default() };
        let mut is_flag = is_test;
        for arg in &self.args {
            is_flag &= arg.as_bytes().starts_with(b"-") && arg != "--" && arg != "-args";
            translated.args.push(if is_flag { paths.flag(arg)? } else { arg.clone() });
        }
        if let Some(directory) = (self.variable)(GOCOVERDIR).filter(|directory| !directory.is_empty()) {
            // What others have left there is nothing to this program.
            let there = paths.directory(Path::new(&directory), false)?;
            translated.env.push((GOCOVERDIR.into(), there));
        }
        paths.request_artifacts(&self.artifacts)?;
        if let Some((package, start)) = package.as_ref().zip(start) {
            let (mut files, unreadable) = package.files()?;
            translated.unreadable = unreadable;
            // It may have no file that Git knows.
            files.add_directory(&package.below);
            self.add_inputs(&mut files, &package.below)?;
            let there = |path: &Path| Path::new(MARK).join(path).into_os_string();
            translated.env.push(("PWD".into(), there(&start)));
            if package.is_of_go {
                translated.env.push(("GOROOT".into(), there(Path::new(MODULE))));
            }
            let name = package.root.file_name().unwrap_or(OsStr::new(MODULE)).to_string_lossy();
            translated.inputs.push(files.pack(name.into_owned(), MODULE)?);
            if self.value("fuzz").is_some() {
                paths.request_artifact(CORPUS.as_ref())?;
            }
            translated.working_directory = start.into_os_string().into_vec();
        } else if !self.inputs.is_empty() {
            let mut files = Files::default();
            self.add_inputs(&mut files, Path::new(""))?;
            translated.inputs.push(files.pack("inputs".to_owned(), HERE)?);
        }
        let Paths { files, outputs, .. } = paths;
        if !files.is_empty() {
            translated.inputs.push(files.pack(FLAGS.to_owned(), FLAGS)?);
        }
        translated.outputs = outputs;
        Ok(translated)
    }

    /// Adds the files that the user names, for a program that starts in `start`.
    fn add_inputs(&self, files: &mut Files, start: &Path) -> Result<(), Error> {
        for input in &self.inputs {
            Input::parse(input)?.add_to(files, &self.directory, start)?;
        }
        Ok(())
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let pass = |name: &&str| Some((OsString::from(*name), (self.variable)(name)?));
        PASSED_ON.iter().filter_map(pass).collect()
    }

    /// The value of a flag of the test binary.
    fn value(&self, name: &str) -> Option<&OsStr> {
        let flag = format!("-test.{name}=");
        let value = self.args.iter().rev().find_map(|arg| arg.as_bytes().strip_prefix(flag.as_bytes()))?;
        Some(OsStr::from_bytes(value))
    }
}

/// Whether a router has the memory for what these arguments of a test ask for.
///
/// # Errors
/// [`Error::NoFuzzing`].
pub fn check(args: &[OsString], router: &str, memory: u64) -> Result<(), Error> {
    let fuzzes = args.iter().any(|arg| arg.as_bytes().starts_with(b"-test.fuzz="));
    if fuzzes && memory < FUZZER_BYTES {
        Err(Error::NoFuzzing { router: router.to_owned(), memory })
    } else {
        Ok(())
    }
}

fn current_directory() -> Result<PathBuf, Error> {
    std::env::current_dir().map_err(Error::io("find", Path::new("the working directory")))
}

/// Where a list of files is, for a test with -coverpkg, and what is in it.
const META_FILES: &str = "metafiles.txt";

#[derive(Deserialize, Serialize)]
struct MetaFiles {
    #[serde(rename = "ImportPaths")]
    packages: Vec<String>,
    #[serde(rename = "MetaFileFragments")]
    fragments: Vec<String>,
}

/// Paths of this machine, and what they are on the router.
struct Paths<'a> {
    call: &'a Call,
    /// Where the program starts, below the job's directory.
    start: PathBuf,
    /// What is there when the program starts.
    files: Files,
    outputs: Vec<Request>,
    /// Directories that have a place already.
    places: BTreeMap<PathBuf, PathBuf>,
    count: usize,
}

impl<'a> Paths<'a> {
    fn new(call: &'a Call, start: PathBuf) -> Self {
        Self { call, start, files: Files::default(), outputs: Vec::new(), places: BTreeMap::new(), count: 0 }
    }

    /// A flag with a path in it, as the router has it.
    fn flag(&mut self, arg: &OsStr) -> Result<OsString, Error> {
        let bytes = arg.as_bytes();
        let Some(equals) = bytes.iter().position(|byte| *byte == b'=') else { return Ok(arg.to_owned()) };
        let (name, value) = (&bytes[..equals], Path::new(OsStr::from_bytes(&bytes[equals + 1..])));
        let Some(name) = name.strip_prefix(b"-test.").filter(|_| value != Path::new("")) else {
            return Ok(arg.to_owned());
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let there = if FILES.contains(&&*name) {
            self.file(value)
        } else if DIRECTORIES.contains(&&*name) {
            self.directory(value, true)?
        } else if name == OUTPUT_DIRECTORY {
            self.output_directory(value)
        } else {
            return Ok(arg.to_owned());
        };
        let mut flag = OsString::from(format!("-test.{name}="));
        flag.push(there);
        Ok(flag)
    }

    /// A directory of its own below that of the flags.
    fn place(&mut self) -> PathBuf {
        let place = PathBuf::from(self.count.to_string());
        self.count += 1;
        self.files.add_directory(&place);
        place
    }

    /// A file that is written there and belongs here.
    fn file(&mut self, value: &Path) -> OsString {
        let directory = self.call.value(OUTPUT_DIRECTORY).map_or(Path::new(""), Path::new);
        let local = self.call.directory.join(directory).join(value);
        let there = Path::new(FLAGS).join(self.place()).join(value.file_name().unwrap_or(OsStr::new("file")));
        self.ask(&there, local);
        Path::new(MARK).join(there).into_os_string()
    }

    /// A directory that comes back, and is there as it is here, or empty.
    fn directory(&mut self, value: &Path, with_content: bool) -> Result<OsString, Error> {
        let local = self.call.directory.join(value);
        let place = match self.places.get(&local) {
            Some(place) => place.clone(),
            None => {
                let place = self.place();
                if with_content {
                    self.files.add_all(&place, &local)?;
                    self.add_meta_files(&place.join(META_FILES), &local.join(META_FILES))?;
                }
                self.ask(&Path::new(FLAGS).join(&place), local.clone());
                self.places.insert(local, place.clone());
                place
            }
        };
        Ok(Path::new(MARK).join(FLAGS).join(place).into_os_string())
    }

    /// With -coverpkg, the directory has a list of files elsewhere that say what there is to cover in the packages that this
    /// test is not of (internal/coverage, MetaFileCollection). The list names them from where the test starts.
    fn add_meta_files(&mut self, there: &Path, list: &Path) -> Result<(), Error> {
        let Ok(text) = fs::read(list) else { return Ok(()) };
        let malformed = |error| Error::Malformed { path: list.to_owned(), source: Box::new(error) };
        let mut meta_files: MetaFiles = serde_json::from_slice(&text).map_err(malformed)?;
        // From the package's directory up to that of the job.
        let up: PathBuf = self.start.iter().map(|_| "..").collect();
        // A package without code has none.
        for fragment in meta_files.fragments.iter_mut().filter(|fragment| !fragment.is_empty()) {
            let from = Path::new(fragment.as_str());
            let to = self.place().join(from.file_name().unwrap_or_default());
            self.files.add(&to, from)?;
            *fragment = up.join(FLAGS).join(to).display().to_string();
        }
        self.files.add_content(there, serde_json::to_vec(&meta_files).map_err(malformed)?);
        Ok(())
    }

    /// The directory to which the files of other flags are relative, which have places of their own.
    fn output_directory(&mut self, value: &Path) -> OsString {
        let place = Path::new(FLAGS).join(self.place());
        self.ask(&place.join(ARTIFACTS), self.call.directory.join(value).join(ARTIFACTS));
        Path::new(MARK).join(place).into_os_string()
    }

    /// Asks for what Go's flags name. Go has chosen the file, or a directory for what the program writes there.
    fn ask(&mut self, there: &Path, local: PathBuf) {
        self.outputs.push(Request {
            remote: there.as_os_str().as_bytes().to_vec(),
            local: Local::Path(local),
            overwrites: true,
            keeps_executability: false,
        });
    }

    fn request_artifacts(&mut self, patterns: &[OsString]) -> Result<(), Error> {
        patterns.iter().try_for_each(|pattern| self.request_artifact(pattern))
    }

    /// Asks for what `PATH[:LOCAL]` names in the package's directory. Without LOCAL it comes to the same path here.
    fn request_artifact(&mut self, text: &OsStr) -> Result<(), Error> {
        let invalid = |why| Error::InvalidPattern { pattern: text.to_string_lossy().into_owned(), why };
        let (path, local) = match text.as_bytes().iter().position(|byte| *byte == b':') {
            Some(colon) => (&text.as_bytes()[..colon], Some(&text.as_bytes()[colon + 1..])),
            None => (text.as_bytes(), None),
        };
        let path = output_path::normal(path)
            .ok_or_else(|| invalid("it must be below the directory of the package"))?;
        let local_names = local.unwrap_or_default().split(|byte| *byte == b'/');
        if output_path::names(&path).into_iter().chain(local_names).any(output_path::is_repository) {
            return Err(invalid("nothing is written into .git, because Git executes what is there"));
        }
        if local.is_some_and(<[u8]>::is_empty) {
            return Err(invalid("there is nothing behind the colon"));
        }
        let path = Path::new(OsStr::from_bytes(&path));
        let is_all = path == Path::new(".");
        let there = match self.start.as_os_str().is_empty() {
            true => path.to_owned(),
            false if is_all => self.start.clone(),
            false => self.start.join(path),
        };
        let Policy { overwrites, keeps_executability, .. } = self.call.policy;
        self.outputs.push(Request {
            remote: there.into_os_string().into_vec(),
            local: match local {
                Some(local) => Local::written(self.call.directory.join(OsStr::from_bytes(local))),
                // Where it is there, seen from the package's directory.
                None => {
                    Local::Below { directory: self.call.directory.clone(), skip: self.start.iter().count() }
                }
            },
            overwrites,
            keeps_executability,
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;
    use crate::transfer::inputs::InputArchive;

    fn call(directory: &Path, args: &[&str]) -> Call {
        let args = args.iter().map(OsString::from).collect();
        let directory = directory.to_owned();
        let policy = Policy::default();
        let (artifacts, inputs) = (Vec::new(), Vec::new());
        Call { is_of_go: true, directory, args, variable: |_| None, artifacts, policy, inputs }
    }

    fn module() -> tempfile::TempDir {
        let module = tempfile::tempdir().unwrap();
        fs::create_dir_all(module.path().join("pkg/testdata")).unwrap();
        fs::write(module.path().join("go.mod"), "module example.com/m\n").unwrap();
        module
    }

    #[test]
    fn test_starts_in_its_package() {
        let module = module();
        let translated = call(&module.path().join("pkg"), &["-test.v=true", "-test.paniconexit0"]);
        let translated = translated.translate().unwrap();
        assert_eq!(translated.args, ["-test.v=true", "-test.paniconexit0"]);
        assert_eq!(translated.working_directory, b"module/pkg");
        assert_eq!(translated.inputs.len(), 1, "no flag names a file");
        assert!(translated.env.contains(&("PWD".into(), format!("{MARK}/module/pkg").into())));
        assert_eq!(translated.outputs, []);
        let top = call(module.path(), &["-test.v=true"]).translate().unwrap();
        assert_eq!(top.working_directory, b"module");
    }

    #[test]
    fn files_of_flags_are_fetched() {
        let (module, build) = (module(), tempfile::tempdir().unwrap());
        let covers = build.path().join("gocoverdir");
        fs::create_dir(&covers).unwrap();
        fs::write(covers.join("covmeta.x"), "meta").unwrap();
        let args = [
            "-test.paniconexit0",
            &format!("-test.gocoverdir={}", covers.display()),
            "-test.outputdir=/home/me",
            "-test.cpuprofile=cpu.out",
            "-test.coverprofile=/tmp/go-build/_cover_.out",
            "word",
            "-test.trace=not-a-flag",
        ];
        let translated = call(&module.path().join("pkg"), &args).translate().unwrap();
        let flag = |name: &str, place: &str| OsString::from(format!("-test.{name}={MARK}/flags/{place}"));
        assert_eq!(
            translated.args[1..5],
            [
                flag("gocoverdir", "0"),
                flag("outputdir", "1"),
                flag("cpuprofile", "2/cpu.out"),
                flag("coverprofile", "3/_cover_.out"),
            ]
        );
        assert_eq!(translated.args[5..], ["word", "-test.trace=not-a-flag"]);
        let local = |remote: &str| {
            let request = translated.outputs.iter().find(|request| request.remote == remote.as_bytes());
            match &request.unwrap().local {
                Local::Path(local) => local.clone(),
                below => panic!("{below:?}"),
            }
        };
        assert_eq!(local("flags/0"), covers);
        assert_eq!(local("flags/1/_artifacts"), Path::new("/home/me/_artifacts"));
        assert_eq!(local("flags/2/cpu.out"), Path::new("/home/me/cpu.out"));
        assert_eq!(local("flags/3/_cover_.out"), Path::new("/tmp/go-build/_cover_.out"));
        let flags = &translated.inputs[1];
        assert_eq!(flags.directory, "flags");
        assert!(flags.archive.content.windows(12).any(|window| window == b"0/covmeta.x\0"));
    }

    #[test]
    fn repeated_directory_is_one_artifact() {
        let directory = tempfile::tempdir().unwrap();
        let mut call = call(directory.path(), &["-test.gocoverdir=/no/such/directory"]);
        call.variable = |name| (name == GOCOVERDIR).then(|| "/no/such/directory".into());
        let translated = call.translate().unwrap();
        let there = format!("{MARK}/flags/0");
        assert_eq!(translated.args, [OsString::from(format!("-test.gocoverdir={there}"))]);
        assert!(translated.env.contains(&(GOCOVERDIR.into(), there.into())));
        assert_eq!(translated.outputs.len(), 1);
    }

    #[test]
    fn artifacts_of_a_test_are_fetched() {
        let module = module();
        let package = module.path().join("pkg");
        let mut call = call(&package, &["-test.paniconexit0", "-test.fuzz=FuzzX"]);
        call.artifacts = ["testdata/*.golden".into(), "out".into()].into();
        let translated = call.translate().unwrap();
        let expected = ["module/pkg/testdata/*.golden", "module/pkg/out", "module/pkg/testdata/fuzz"];
        let expected = expected.map(|remote| Request {
            remote: remote.into(),
            local: Local::Below { directory: package.clone(), skip: 2 },
            overwrites: false,
            keeps_executability: false,
        });
        assert_eq!(translated.outputs, expected);
        call.artifacts = vec!["out:/elsewhere".into()];
        let expected = Local::Path("/elsewhere".into());
        assert_eq!(call.translate().unwrap().outputs[0].local, expected, "LOCAL says where");
        for elsewhere in ["../other", ".git/hooks", "out:", "out:.git/hooks"] {
            call.artifacts = vec![elsewhere.into()];
            assert!(call.translate().is_err());
        }
    }

    #[test]
    fn named_inputs_join_the_package() {
        let module = module();
        fs::write(module.path().join("generated"), "generated").unwrap();
        let mut call = call(&module.path().join("pkg"), &["-test.v=true"]);
        call.inputs = vec!["../generated:testdata/".into()];
        let has = |archive: &InputArchive, name: &str| {
            let name = format!("{name}\0");
            archive.archive.content.windows(name.len()).any(|window| window == name.as_bytes())
        };
        let test = call.translate().unwrap();
        assert!(has(&test.inputs[0], "pkg/testdata/generated"));
        call.args = vec!["word".into()];
        let program = call.translate().unwrap();
        assert!(has(&program.inputs[0], "testdata/generated") && program.inputs[0].directory == HERE);
        assert_eq!(program.working_directory, b"");
    }

    #[test]
    fn go_run_passes_no_private_variables() {
        let mut call = call(Path::new("/"), &["a=b", "-x=/y"]);
        call.variable = |name| Some(format!("value of {name}").into());
        let translated = call.translate().unwrap();
        assert_eq!(translated.args, ["a=b", "-x=/y"]);
        let names: Vec<_> = translated.env.iter().map(|(name, _)| name.to_str().unwrap()).collect();
        assert!(names.contains(&"GODEBUG") && !names.contains(&"HOME") && !names.contains(&"GOPROXY"));
    }
}
