//! Which instruction set a kernel runs on, asked of the processor once.

use std::sync::OnceLock;

/// An instruction set that kernels are written for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isa {
    /// Plain Rust: the truth that the others are held to.
    Scalar,
    /// x86-64 with AVX2.
    Avx2,
}

impl Isa {
    /// All that this processor can run, slowest first; never empty.
    #[must_use]
    pub fn available() -> &'static [Self] {
        static AVAILABLE: OnceLock<Vec<Isa>> = OnceLock::new();
        AVAILABLE.get_or_init(|| {
            let mut isas = vec![Self::Scalar];
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                isas.push(Self::Avx2);
            }
            isas
        })
    }

    /// The fastest one that this processor can run.
    #[must_use]
    pub fn best() -> Self {
        Self::available().last().copied().unwrap_or(Self::Scalar)
    }

    /// True where this processor can run it. Kernels fall back to [`Isa::Scalar`] where it is false.
    #[must_use]
    pub fn is_available(self) -> bool {
        Self::available().contains(&self)
    }

    /// Lower-case name for benches and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Avx2 => "avx2",
        }
    }
}
