//! Whether a validator client runs.

/// The client as its runner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Instance {
    /// It runs; with what tells this start of it from others.
    Running(String),
    /// No process of it exists, as its runner, which starts and reaps them, says.
    Stopped,
    /// Neither is certain.
    Unclear(String),
}

impl Instance {
    /// The precondition of a plan.
    pub(super) fn fingerprint(&self) -> String {
        match self {
            Self::Running(start) => format!("running start={start}"),
            Self::Stopped => "stopped".to_owned(),
            Self::Unclear(reason) => format!("unclear ({reason})"),
        }
    }
}
