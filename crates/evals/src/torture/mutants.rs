//! The deliberate faults of a build with the feature `mutants`, and the bar that detects each.

use anyhow::bail;

/// A deliberate fault.
pub(super) struct Mutant {
    /// Value of `WARDROOM_MUTANT`.
    name: &'static str,
    /// The bars that detect it.
    bars: &'static [&'static str],
    /// `kills` that suffice for that, unless they are given.
    pub(super) kills: u64,
}

const fn mutant(name: &'static str, bars: &'static [&'static str], kills: u64) -> Mutant {
    Mutant { name, bars, kills }
}

/// All of them; docs/reliability/README.md says what each does.
const MUTANTS: [Mutant; 19] = [
    mutant("accept-and-drop", &["1a"], 1),
    mutant("ack-before-append", &["1b"], 20),
    mutant("drop-poison", &["2b"], 1),
    mutant("finish-before-change", &["3a", "loop"], 76),
    mutant("effects-after-change", &["3a", "loop"], 76),
    mutant("accept-second-approval", &["3d"], 3),
    mutant("ignore-fencing", &["3d"], 1),
    mutant("skip-plan-hash", &["3e"], 200),
    mutant("proof-not-bound", &["3e"], 200),
    mutant("ignore-stop", &["3h"], 15),
    mutant("ack-before-sync", &["4a"], 10),
    mutant("ack-after-failed-sync", &["4b"], 5),
    mutant("skip-checksum", &["4c"], 200),
    mutant("skip-txn-check", &["5a", "5e"], 40),
    mutant("ignore-policy", &["6h"], 1),
    mutant("forget-idempotency-key", &["loop"], 76),
    mutant("skip-entry-hash", &["7h"], 90),
    mutant("skip-signed-heads", &["7h"], 90),
    mutant("skip-published-heads", &["7h"], 90),
];

/// Returns the mutant with this name, which a bar must detect.
pub(super) fn find(name: &str, bar: &str) -> anyhow::Result<&'static Mutant> {
    let Some(found) = MUTANTS.iter().find(|mutant| mutant.name == name) else {
        let known: Vec<&str> = MUTANTS.iter().map(|mutant| mutant.name).collect();
        bail!("unknown mutant {name:?}; known: {}", known.join(", "));
    };
    if !found.bars.contains(&bar) {
        bail!("bar {bar} does not test what {name} breaks; bars that do: {}", found.bars.join(", "));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutant_belongs_to_its_bars() {
        assert_eq!(find("ignore-policy", "6h").unwrap().kills, 1);
        assert!(find("ignore-policy", "3e").err().unwrap().to_string().contains("bars that do: 6h"));
        assert!(find("unknown", "6h").err().unwrap().to_string().contains("known: accept-and-drop"));
        for mutant in &MUTANTS {
            let bars = super::super::BARS.map(|(bar, _)| bar);
            assert!(mutant.bars.iter().all(|bar| bars.contains(bar)), "{}", mutant.name);
        }
    }
}
