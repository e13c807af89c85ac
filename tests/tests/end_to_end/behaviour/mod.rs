//! How Hop behaves, on this machine and on whole virtual routers: one text for all of them.
//!
//! Each behaviour has a [`Scope`], which says on which targets it is tested, by what it depends on. One kernel of each endianness
//! runs everything, of which one has cgroups ([`FULL`]); the other three run what a kernel, a firmware or the size of the memory
//! can change.

use hop_tests::Target;

use crate::plan::{Plan, Set};

/// Lists behaviours by their functions, under the scope of each. The compiler warns of a function that no list has.
macro_rules! behaviours {
    ($($scope:ident: $($name:ident),*;)*) => {
        [$($(super::Behaviour { name: stringify!($name), scope: super::Scope::$scope, run: $name },)*)*]
    };
}

mod connections;
mod cores;
mod detached;
mod endings;
mod exhaustion;
mod go_test;
mod inputs;
mod kept;
mod limits;
mod links;
mod output_files;
mod programs;
mod protocol;
mod streams;
mod terminal;
mod transfer;

/// Where a behaviour is tested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// It depends on the kernel, the firmware, cgroups, or the size of the memory: on all targets.
    Everywhere,
    /// The same, and it changes a whole machine, or needs what only an embedded kernel has: on all virtual routers.
    Routers,
    /// On virtual routers whose kernel has cgroups.
    Cgroups,
    /// On virtual routers whose kernel has none, where the whole thread table is a program's to fill.
    NoCgroups,
    /// It fills something that is small on a small router: here, and on the routers with 64 MB.
    SmallMemory,
    /// It depends on nothing but Hop's own code, and on the byte order at most: here, over kept connections, and on [`FULL`].
    Portable,
    /// It moves more than an emulated router does in a reasonable time: on this machine.
    Here,
}

/// A behaviour.
pub struct Behaviour {
    pub name: &'static str,
    pub scope: Scope,
    pub run: fn(Target),
}

/// The virtual routers that run everything: big endian with cgroups and a kernel of today; little endian without, and a kernel of 2013.
const FULL: [Target; 2] = [Target::ARCHER_A6, Target::F7D7302];

/// The targets, those with most tests first.
const TARGETS: [Target; 7] = [
    Target::F7D7302,
    Target::ARCHER_A6,
    Target::Kept,
    Target::Host,
    Target::DIR_505,
    Target::RUT955,
    Target::FRITZBOX_7362SL,
];

const MODULES: [(&str, &[Behaviour]); 16] = [
    ("go_test", go_test::ALL),
    ("inputs", inputs::ALL),
    ("connections", connections::ALL),
    ("cores", cores::ALL),
    ("detached", detached::ALL),
    ("endings", endings::ALL),
    ("exhaustion", exhaustion::ALL),
    ("kept", kept::ALL),
    ("limits", limits::ALL),
    ("links", links::ALL),
    ("output_files", output_files::ALL),
    ("programs", programs::ALL),
    ("protocol", protocol::ALL),
    ("streams", streams::ALL),
    ("terminal", terminal::ALL),
    ("transfer", transfer::ALL),
];

impl Scope {
    fn has(self, target: Target) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Routers => !target.is_here(),
            Self::Cgroups => target.has_cgroups() == Some(true),
            Self::NoCgroups => target.has_cgroups() == Some(false),
            Self::SmallMemory => [Target::Host, Target::DIR_505, Target::F7D7302].contains(&target),
            Self::Portable => target.is_here() || FULL.contains(&target),
            Self::Here => target.is_here(),
        }
    }
}

/// The targets of a run without `--all`: this machine, a router of each endianness, of each firmware's kind, and of both ages.
const DEFAULT: [Target; 3] = [Target::Host, Target::F7D7302, Target::DIR_505];

/// Adds the behaviours.
pub fn plan(plan: &mut Plan) {
    for target in TARGETS {
        let suite = format!("behaviour::{}", target.name());
        let set = if DEFAULT.contains(&target) { Set::Default } else { Set::All };
        for (module, behaviours) in MODULES {
            for Behaviour { name, run, .. } in behaviours.iter().filter(|test| test.scope.has(target)) {
                plan.add(set, &suite, &format!("{module}::{name}"), move || run(target));
            }
        }
    }
}
