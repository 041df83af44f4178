//! Why a step ran.

/// One thing that differs from an earlier record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// No record of the instruction.
    NeverBuilt,
}
