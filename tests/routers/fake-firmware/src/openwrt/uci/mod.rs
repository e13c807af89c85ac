//! `uci`: packages of sections of options in /etc/config. Changes are in /tmp/.uci until `uci commit`.
//!
//! As in the original, a file there is a list of changes (a delta), which applies whenever its package is read. It has no effect while
//! its package has no file in /etc/config, and applies again when that file is created again.

mod delta;
mod package;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use crate::console::print;
use delta::Delta;
use package::{Package, Value, quoted, words};

const CONFIG: &str = "/etc/config";
const DELTAS: &str = "/tmp/.uci";

/// Why a command failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Failure {
    NotFound,
    Invalid,
    Parse,
    Io,
}

type Done = Result<(), Failure>;

/// The directories of packages and deltas.
struct Store {
    config: String,
    deltas: String,
    names: bool,
}

impl Store {
    /// The package as it would be if it were committed now.
    fn load(&self, package: &str) -> Result<Package, Failure> {
        if package.is_empty() || package.contains('/') {
            return Err(Failure::Invalid);
        }
        let text = fs::read_to_string(format!("{}/{package}", self.config)).map_err(|_| Failure::NotFound)?;
        let mut package_as_committed = Package::parse(&text).ok_or(Failure::Parse)?;
        for delta in self.delta(package).lines().filter_map(Delta::parse) {
            // A change of a removed section has no effect.
            let _ = delta.apply(&mut package_as_committed);
        }
        Ok(package_as_committed)
    }

    fn delta(&self, package: &str) -> String {
        fs::read_to_string(format!("{}/{package}", self.deltas)).unwrap_or_default()
    }

    fn note(&self, package: &str, line: &str) -> Done {
        let file = || OpenOptions::new().append(true).create(true).open(format!("{}/{package}", self.deltas));
        let noted = fs::create_dir_all(&self.deltas).and_then(|()| file()?.write_all(line.as_bytes()));
        noted.map_err(|_| Failure::Io)
    }

    fn packages(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn commit(&self, name: &str) -> Done {
        let text = self.load(name)?.text(false);
        if self.delta(name).is_empty() {
            return Ok(());
        }
        let (path, new) = (format!("{}/{name}", self.config), format!("{}/.{name}.uci", self.config));
        let write = || -> io::Result<()> {
            let mut file = fs::File::create(&new)?;
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(|_| {
            let _ = fs::remove_file(&new);
            Failure::Io
        })?;
        self.revert(name)
    }

    /// Empties the delta, whose file stays.
    fn revert(&self, name: &str) -> Done {
        self.load(name)?;
        let path = format!("{}/{name}", self.deltas);
        match OpenOptions::new().write(true).truncate(true).open(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::Io),
            _ => Ok(()),
        }
    }

    fn run(&self, words: &[String]) -> Done {
        let verb = words.first().map_or("", String::as_str);
        let argument = words.get(1).map(String::as_str);
        match (verb, argument) {
            ("show" | "export", None) => {
                for name in self.packages(&self.config) {
                    self.run(&[verb.to_owned(), name])?;
                }
                Ok(())
            }
            ("commit" | "revert", None) => {
                for name in self.packages(&self.deltas) {
                    // What has no file of its own any more can neither be committed nor reverted.
                    let _ = self.run(&[verb.to_owned(), name]);
                }
                Ok(())
            }
            ("changes", name) => {
                let names = name.map_or_else(|| self.packages(&self.deltas), |name| vec![name.to_owned()]);
                names.iter().for_each(|name| print(&self.delta(name)));
                Ok(())
            }
            ("commit", Some(name)) => self.commit(name),
            ("revert", Some(name)) => self.revert(name),
            ("export", Some(name)) => {
                print(&format!("package {name}\n{}", self.load(name)?.text(self.names)));
                Ok(())
            }
            ("show" | "get", Some(path)) => self.show(verb, path),
            ("add", Some(name)) => {
                let mut package = self.load(name)?;
                let kind = words.get(2).ok_or(Failure::Invalid)?;
                package.add(kind, None);
                let section = package.sections.last().map_or("", |section| section.name.as_str());
                let delta = Delta { verb: Some('+'), section, option: None, value: Some(kind.clone()) };
                self.note(name, &delta.line(name, section))?;
                print(&format!("{section}\n"));
                Ok(())
            }
            ("set" | "add_list" | "del_list" | "delete", Some(_)) => {
                words[1..].iter().try_for_each(|argument| self.change(verb, argument))
            }
            _ => Err(Failure::Invalid),
        }
    }

    fn show(&self, verb: &str, path: &str) -> Done {
        let (name, section, option) = split(path);
        let package = self.load(name)?;
        let Some(section) = section else {
            let all = (0..package.sections.len()).map(|index| package.show(name, index));
            print(&all.collect::<String>());
            return Ok(());
        };
        let index = package.find(section).ok_or(Failure::NotFound)?;
        let found = &package.sections[index];
        let Some(option) = option else {
            print(&if verb == "get" { format!("{}\n", found.kind) } else { package.show(name, index) });
            return Ok(());
        };
        let value = found.get(option).ok_or(Failure::NotFound)?;
        let text = match (value, verb) {
            (Value::One(value), "get") => value.clone(),
            (Value::List(items), "get") => items.join(" "),
            (Value::One(value), _) => format!("{name}.{section}.{option}={}", quoted(value)),
            (Value::List(items), _) => {
                let items: Vec<_> = items.iter().map(|item| quoted(item)).collect();
                format!("{name}.{section}.{option}={}", items.join(" "))
            }
        };
        print(&format!("{text}\n"));
        Ok(())
    }

    fn change(&self, verb: &str, argument: &str) -> Done {
        let (path, value) = argument.split_once('=').map_or((argument, None), |(path, v)| (path, Some(v)));
        let (name, section, option) = split(path);
        let section = section.ok_or(Failure::Invalid)?;
        let delta = Delta::of_command(verb, section, option, value).ok_or(Failure::Invalid)?;
        let section = delta.apply(&mut self.load(name)?)?;
        self.note(name, &delta.line(name, &section))
    }
}

/// `package.section.option`; a section such as `@type[0]` has no dot in it.
fn split(path: &str) -> (&str, Option<&str>, Option<&str>) {
    let mut parts = path.splitn(3, '.');
    (parts.next().unwrap_or_default(), parts.next(), parts.next())
}

/// `uci [-q] [-n] [-c DIRECTORY] [-P DIRECTORY] VERB ...`, or `uci batch` with such lines on its input.
pub fn main(arguments: &[String]) -> ExitCode {
    let mut store = Store { config: CONFIG.to_owned(), deltas: DELTAS.to_owned(), names: false };
    let mut quiet = false;
    let mut rest = arguments;
    while let Some((option, after)) = rest.split_first().filter(|(word, _)| word.starts_with('-')) {
        rest = after;
        let value = rest.first().cloned().unwrap_or_default();
        match option.as_str() {
            "-q" => quiet = true,
            "-n" => store.names = true,
            "-c" | "-P" | "-p" | "-t" | "-f" | "-d" | "-C" => {
                rest = rest.get(1..).unwrap_or_default();
                match option.as_str() {
                    "-c" => store.config = value,
                    "-P" | "-t" => store.deltas = value,
                    _ => {}
                }
            }
            _ => {}
        }
    }
    let result = if rest.first().is_some_and(|verb| verb == "batch") {
        let text = io::read_to_string(io::stdin()).unwrap_or_default();
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        lines.try_for_each(|line| store.run(&words(line).ok_or(Failure::Parse)?))
    } else {
        store.run(rest)
    };
    let Err(failure) = result else { return ExitCode::SUCCESS };
    if !quiet {
        let _ = writeln!(
            io::stderr(),
            "uci: {}",
            match failure {
                Failure::NotFound => "Entry not found",
                Failure::Invalid => "Invalid argument",
                Failure::Parse => "Parse error",
                Failure::Io => "I/O error",
            }
        );
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::package::tests::TEXT;
    use super::*;

    #[test]
    fn changes_stay_in_the_delta_directory() {
        let place = std::env::temp_dir().join(format!("fake-firmware-uci-{}", std::process::id()));
        let (config, deltas) = (place.join("config"), place.join("deltas"));
        fs::create_dir_all(&config).expect("a directory");
        fs::write(config.join("hopd"), TEXT).expect("a file");
        let store = Store {
            config: config.display().to_string(),
            deltas: deltas.display().to_string(),
            names: false,
        };
        let run = |words: &str| store.run(&words.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let read = |path: std::path::PathBuf| fs::read_to_string(path).unwrap_or_default();
        assert_eq!(run("set hopd.main.port=1"), Ok(()));
        assert_eq!(run("set hopd.other=hopd"), Ok(()));
        assert_eq!(run("add_list hopd.@peer[0].key=it's"), Ok(()));
        assert_eq!(run("add hopd peer"), Ok(()));
        assert_eq!(run("delete hopd.main.name"), Ok(()));
        assert_eq!(run("set hopd.none.port=1"), Err(Failure::NotFound));
        assert_eq!(read(config.join("hopd")), TEXT);
        let lines = read(deltas.join("hopd"));
        assert!(lines.starts_with("hopd.main.port='1'\nhopd.other='hopd'\n|hopd.cfg02"), "{lines}");

        // The file goes and comes again, and its changes are still there.
        fs::remove_file(config.join("hopd")).expect("a file");
        for words in ["set hopd.main.port=2", "revert hopd", "commit hopd", "show hopd"] {
            assert_eq!(run(words), Err(Failure::NotFound), "{words}");
        }
        fs::write(config.join("hopd"), TEXT).expect("a file");
        let changed = store.load("hopd").expect("a package");
        assert_eq!(changed.sections.iter().filter(|section| section.kind == "peer").count(), 3);
        assert_eq!(run("commit hopd"), Ok(()));
        assert_eq!(
            Package::parse(&read(config.join("hopd"))).map(|it| it.text(false)),
            Some(changed.text(false))
        );
        assert!(changed.text(false).contains("list key 'it'\\''s'"), "{}", changed.text(false));
        assert_eq!(read(deltas.join("hopd")), "");
        assert_eq!(run("set hopd.main.port=3"), Ok(()));
        assert_eq!(run("revert hopd"), Ok(()));
        assert_eq!(store.load("hopd").map(|it| it.text(false)), Ok(changed.text(false)));
        fs::remove_dir_all(&place).expect("it is ours");
    }
}
