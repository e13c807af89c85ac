//! An agent under attack, and another controller that goes on using it.

use hop::config::home::Home;
use hop_tests::{Footprint, Hop, Options, Target, VirtualRouter, fixture};

/// How much an attack may make the agent grow, in kB: by messages in transit, and by the buffers of HTTP/2 and TLS for
/// one connection.
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

    /// The `hop` of the controller that does not attack.
    pub fn bystander(&self) -> Hop {
        Hop::at(&self.router.path("other"))
    }

    /// Asserts that the other controller can run programs and list jobs.
    pub fn assert_bystander_served(&self) {
        let program = fixture(self.router.target(), "both-outputs");
        let ran = self.bystander().args(["exec", "-r", "router"]).arg(program).run();
        assert_eq!((ran.stdout(), ran.code), ("out\n", 7), "{}", ran.stderr());
        let ran = self.bystander().args(["ps", "-r", "router"]).run();
        assert_eq!(ran.code, 0, "{}", ran.stderr());
    }

    /// Asserts after an attack that the agent serves the other controller, and has not grown.
    pub fn assert_unharmed(&self, attack: &str) {
        self.assert_bystander_served();
        let grown = self.router.footprint().peak.saturating_sub(self.before.peak);
        assert!(grown < MAX_GROWTH, "{attack}: the agent grew by {grown} kB");
    }
}
