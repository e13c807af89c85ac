//! An agent that is attacked, and another controller that goes on using it.

use hop::config::home::Home;
use hop_tests::{Footprint, Hop, Options, Target, VirtualRouter, fixture};

/// What an attack may make the agent grow by, in kB: messages on their way, and what HTTP/2 and TLS hold of one connection.
const MAX_GROWTH: u64 = 6 * 1024;

/// An agent with two controllers, of which one attacks.
pub struct AttackedRouter {
    pub router: VirtualRouter,
    before: Footprint,
}

impl AttackedRouter {
    pub fn start(target: Target) -> Self {
        let router = VirtualRouter::start_with(target, &Options::default());
        let other = Home::at(&router.path("other"));
        router.enrol_for(&other);
        let keys = [router.home(), other].map(|home| home.identity().unwrap().fingerprint());
        router.write_authorized(&format!("{} attacker\n{} bystander\n", keys[0], keys[1]));
        let attacked = Self { before: router.footprint(), router };
        attacked.assert_bystander_served();
        Self { before: attacked.router.footprint(), ..attacked }
    }

    /// `hop` of the controller that does nothing wrong.
    pub fn bystander(&self) -> Hop {
        Hop::at(&self.router.path("other"))
    }

    /// Programs run, and jobs are listed, for whoever does nothing wrong.
    pub fn assert_bystander_served(&self) {
        let program = fixture(self.router.target(), "both-outputs");
        let ran = self.bystander().args(["exec", "-r", "router"]).arg(program).run();
        assert_eq!((ran.stdout(), ran.code), ("out\n", 7), "{}", ran.stderr());
        let ran = self.bystander().args(["ps", "-r", "router"]).run();
        assert_eq!(ran.code, 0, "{}", ran.stderr());
    }

    /// After an attack: the other controller is served, and the agent has not grown.
    pub fn assert_unharmed(&self, attack: &str) {
        self.assert_bystander_served();
        let grown = self.router.footprint().peak.saturating_sub(self.before.peak);
        assert!(grown < MAX_GROWTH, "{attack}: the agent grew by {grown} kB");
    }
}
