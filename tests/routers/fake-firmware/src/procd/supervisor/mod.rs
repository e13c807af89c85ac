//! procd's services: their configuration, their processes, and when the next one starts or is killed.

mod instance;

use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use crate::pid1::spawn;
use crate::procd::json::{Blob, Json};
use crate::procd::ubus::Status;
use instance::Instance;

/// The output of a service, to be logged line by line.
pub struct Output {
    pub file: OwnedFd,
    /// `NAME[PID]`
    pub tag: String,
    /// It was written to stderr.
    pub error: bool,
}

/// All services.
#[derive(Default)]
pub struct Supervisor {
    services: Vec<Service>,
    /// Outputs of new processes, until `take`.
    outputs: Vec<Output>,
    /// Lines for the log, until `take`.
    events: Vec<String>,
    /// Scripts of triggers, and when they run.
    pulled: Vec<(Instant, Vec<String>)>,
    /// True at shutdown: nothing is restarted.
    closing: bool,
}

struct Service {
    name: String,
    instances: Vec<Instance>,
    data: Option<Json>,
    triggers: Option<Json>,
    /// Removed after its last process exits.
    deleted: bool,
}

impl Supervisor {
    /// Answers a call of the object `service`.
    pub fn call(&mut self, method: &str, message: &Json, now: Instant) -> Result<Option<Json>, Status> {
        let name = message.get("name").and_then(Json::text);
        let name = name.as_deref();
        match method {
            "set" | "add" => {
                self.set(name.ok_or(Status::InvalidArgument)?, message, method == "add", now);
                Ok(None)
            }
            "delete" => {
                let instance = message.get("instance").and_then(Json::text);
                self.delete(name.ok_or(Status::InvalidArgument)?, instance.as_deref(), now).map(|()| None)
            }
            "list" => Ok(Some(self.list(name))),
            "signal" => {
                let number = message.get("signal").and_then(Json::number).unwrap_or(i64::from(libc::SIGHUP));
                self.signal(name.ok_or(Status::InvalidArgument)?, number).map(|()| None)
            }
            "event" => {
                self.pull_triggers(message, now);
                Ok(None)
            }
            "state" | "update_start" | "update_complete" => Ok(None),
            _ => Err(Status::MethodNotFound),
        }
    }

    /// Handles an event such as `config.change`, with its data: each trigger for it runs its script after its delay, which a second
    /// event restarts.
    fn pull_triggers(&mut self, message: &Json, now: Instant) {
        let kind = message.get("type").and_then(Json::text).unwrap_or_default();
        let data = message.get("data").unwrap_or(&Json::Null);
        let triggers = self.services.iter().filter_map(|service| service.triggers.as_ref());
        for trigger in triggers.flat_map(Json::items) {
            let [event, action, rest @ ..] = trigger.items() else { continue };
            let matches = event.text().is_some_and(|event| match event.strip_suffix(".*") {
                Some(prefix) => kind.starts_with(prefix),
                None => kind == event,
            });
            if let Some(script) = script(action, data).filter(|_| matches) {
                let delay = rest.first().and_then(Json::number).unwrap_or(1000).max(0);
                self.pulled.retain(|(_, pulled)| *pulled != script);
                self.pulled.push((now + Duration::from_millis(delay as u64), script));
            }
        }
    }

    fn find(&mut self, name: &str) -> Result<&mut Service, Status> {
        self.services
            .iter_mut()
            .find(|service| service.name == name && !service.deleted)
            .ok_or(Status::NotFound)
    }

    fn set(&mut self, name: &str, message: &Json, add: bool, now: Instant) {
        let index = self.services.iter().position(|service| service.name == name).unwrap_or_else(|| {
            self.services.push(Service {
                name: name.to_owned(),
                instances: Vec::new(),
                data: None,
                triggers: None,
                deleted: false,
            });
            self.services.len() - 1
        });
        let service = &mut self.services[index];
        service.deleted = false;
        service.data = message.get("data").cloned();
        service.triggers = message.get("triggers").cloned();
        let wanted: Vec<_> = message.get("instances").into_iter().flat_map(Json::members).collect();
        if !add {
            let unwanted = |instance: &&mut Instance| !wanted.iter().any(|(name, _)| **name == instance.name);
            service.instances.iter_mut().filter(unwanted).for_each(|instance| instance.stop(now));
        }
        for (name, config) in wanted {
            match service.instances.iter_mut().find(|instance| instance.name == *name) {
                Some(instance) => instance.update(config, now),
                None => service.instances.push(Instance::new(name, config, now)),
            }
        }
        self.tick(now);
    }

    fn delete(&mut self, name: &str, instance: Option<&str>, now: Instant) -> Result<(), Status> {
        let service = self.find(name)?;
        if let Some(wanted) = instance {
            let found = service.instances.iter_mut().find(|instance| instance.name == wanted);
            found.ok_or(Status::NotFound)?.stop(now);
        } else {
            service.instances.iter_mut().for_each(|instance| instance.stop(now));
            service.deleted = true;
        }
        self.tick(now);
        Ok(())
    }

    fn signal(&mut self, name: &str, number: i64) -> Result<(), Status> {
        for instance in &self.find(name)?.instances {
            spawn::signal(instance.pid(), number as i32);
        }
        Ok(())
    }

    fn list(&self, wanted: Option<&str>) -> Json {
        let shown = self.services.iter().filter(|service| wanted.is_none_or(|name| name == service.name));
        shown.map(|service| (service.name.clone(), service.show())).collect()
    }

    /// Handles the exit of a child of PID 1, which may be a service's.
    pub fn ended(&mut self, pid: u32, code: i32, now: Instant) {
        for service in &mut self.services {
            for instance in service.instances.iter_mut().filter(|instance| instance.pid() == pid) {
                if let Some(event) = instance.ended(code, self.closing, now) {
                    self.events.push(format!("{}::{} {event}", service.name, instance.name));
                }
            }
        }
        self.tick(now);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        for (_, script) in self.pulled.extract_if(.., |(at, _)| *at <= now && !self.closing) {
            if let Err(error) = spawn::command(&script, spawn::PATH).spawn() {
                self.events.push(format!("{}: {error}", script.join(" ")));
            }
        }
        let due = |time: &Option<Instant>| time.is_some_and(|time| time <= now);
        for service in &mut self.services {
            for instance in &mut service.instances {
                if due(&instance.kill_at) {
                    instance.kill_at = None;
                    self.events.push(format!(
                        "{}::{} does not end on SIGTERM: SIGKILL",
                        service.name, instance.name
                    ));
                    spawn::signal(instance.pid(), libc::SIGKILL);
                }
                if due(&instance.start_at) && !self.closing {
                    instance.start_at = None;
                    match instance.start(&service.name, now) {
                        Ok(outputs) => self.outputs.extend(outputs),
                        Err(error) => {
                            self.events.push(format!("{}::{}: {error}", service.name, instance.name));
                            // As procd, whose child ends before it has become the program.
                            instance.process = Some((0, now));
                            instance.ended(127, self.closing, now);
                        }
                    }
                }
            }
            service.instances.retain(|instance| {
                !instance.halting || instance.process.is_some() || instance.start_at.is_some()
            });
        }
        self.services.retain(|service| !service.deleted || !service.instances.is_empty());
    }

    /// When `tick` is needed next.
    pub fn next(&self) -> Option<Instant> {
        let instances = self.services.iter().flat_map(|service| &service.instances);
        instances
            .flat_map(|instance| [instance.kill_at, instance.start_at.filter(|_| !self.closing)])
            .flatten()
            .chain(self.pulled.iter().map(|(at, _)| *at).filter(|_| !self.closing))
            .min()
    }

    /// Nothing starts again from now on.
    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Takes the outputs of new processes, and lines for the log.
    pub fn take(&mut self) -> (Vec<Output>, Vec<String>) {
        (std::mem::take(&mut self.outputs), std::mem::take(&mut self.events))
    }
}

impl Service {
    fn show(&self) -> Json {
        let mut members = serde_json::Map::new();
        if !self.instances.is_empty() {
            let instances = self.instances.iter().map(|instance| (instance.name.clone(), instance.show()));
            members.insert("instances".to_owned(), instances.collect());
        }
        for (name, value) in [("triggers", &self.triggers), ("data", &self.data)] {
            if let Some(value) = value
                && !(value.items().is_empty() && value.members().next().is_none())
            {
                members.insert(name.to_owned(), value.clone());
            }
        }
        members.into()
    }
}

/// The script of a trigger's action, `["if", ["eq", NAME, VALUE], ["run_script", SCRIPT, VERB]]`, if its condition holds.
fn script(action: &Json, data: &Json) -> Option<Vec<String>> {
    let (verb, rest) = action.items().split_first()?;
    match (&*verb.text()?, rest) {
        ("if", [condition, then, ..]) => {
            let [relation, name, value] = condition.items() else { return None };
            let holds = relation.text().as_deref() == Some("eq") && data.get(&*name.text()?) == Some(value);
            holds.then(|| script(then, data)).flatten()
        }
        ("run_script", words) => words.iter().map(|word| word.text().map(Cow::into_owned)).collect(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::procd::json::{self, json};

    fn message(instances: &str) -> Json {
        json::parse(&format!(r#"{{"name":"x","instances":{instances}}}"#)).expect("JSON")
    }

    fn instance(supervisor: &Supervisor) -> Json {
        let list = supervisor.list(Some("x"));
        list.get("x").and_then(|x| x.get("instances")?.get("i").cloned()).unwrap_or(Json::Null)
    }

    fn pid(supervisor: &Supervisor) -> u32 {
        instance(supervisor).get("pid").and_then(Json::number).unwrap_or(0) as u32
    }

    const SLEEP: &str = r#"{"i":{"command":["sleep","60"],"respawn":["3600","1","1"]}}"#;

    #[test]
    fn only_changed_services_restart() {
        let (mut supervisor, now) = (Supervisor::default(), Instant::now());
        supervisor.call("set", &message(SLEEP), now).expect("set");
        let first = pid(&supervisor);
        assert!(first > 0);
        supervisor.call("set", &message(SLEEP), now).expect("set");
        assert_eq!(pid(&supervisor), first);
        supervisor.call("set", &message(&SLEEP.replace("60", "61")), now).expect("set");
        supervisor.ended(first, 143, now);
        let second = pid(&supervisor);
        assert!(second > 0 && second != first);
        supervisor.call("delete", &message("{}"), now).expect("delete");
        assert!(supervisor.next().is_some(), "KILL follows");
        supervisor.ended(second, 143, now);
        assert_eq!(supervisor.list(None), json!({}));
        assert_eq!(supervisor.call("delete", &message("{}"), now), Err(Status::NotFound));
    }

    #[test]
    fn crash_loops_stop_until_the_next_start() {
        let (mut supervisor, mut now) = (Supervisor::default(), Instant::now());
        supervisor.call("set", &message(SLEEP), now).expect("set");
        for _ in 0..2 {
            spawn::signal(pid(&supervisor), libc::SIGKILL);
            supervisor.ended(pid(&supervisor), 0, now);
            now += Duration::from_secs(1);
            supervisor.tick(now);
        }
        assert_eq!(instance(&supervisor).get("running"), Some(&Json::Bool(false)));
        assert_eq!(supervisor.take().1.len(), 1, "the crash loop is logged once");
        supervisor.call("set", &message(SLEEP), now).expect("set");
        assert!(pid(&supervisor) > 0);
        spawn::signal(pid(&supervisor), libc::SIGKILL);
    }

    #[test]
    fn config_change_runs_its_trigger() {
        let (mut supervisor, now) = (Supervisor::default(), Instant::now());
        let triggers =
            r#"[["config.change",["if",["eq","package","x"],["run_script","true","reload"]],1000]]"#;
        let message = format!(r#"{{"name":"x","instances":{{}},"triggers":{triggers}}}"#);
        supervisor.call("set", &json::parse(&message).expect("JSON"), now).expect("set");
        let event = |package: &str| {
            let text = format!(r#"{{"type":"config.change","data":{{"package":"{package}"}}}}"#);
            json::parse(&text).expect("JSON")
        };
        supervisor.call("event", &event("network"), now).expect("event");
        assert_eq!(supervisor.next(), None);
        for _ in 0..2 {
            supervisor.call("event", &event("x"), now).expect("event");
        }
        let due = supervisor.next().expect("it waits a second");
        assert_eq!((due - now, supervisor.pulled.len()), (Duration::from_secs(1), 1));
        assert_eq!(supervisor.pulled[0].1, ["true", "reload"]);
        supervisor.tick(due);
        assert_eq!(supervisor.next(), None);
    }

    #[test]
    fn missing_programs_exit_with_127() {
        let (mut supervisor, now) = (Supervisor::default(), Instant::now());
        supervisor.call("set", &message(r#"{"i":{"command":["/nowhere"]}}"#), now).expect("set");
        assert_eq!(instance(&supervisor).get("exit_code").and_then(Json::number), Some(127));
    }
}
