//! What a network's answers mean: scores, levels, reasons to turn away, places with their sizes, nuclei.
//!
//! In: [`Answers`](crate::Answers) (probabilities, shapes checked), the manifest that says what they are, and where in
//! the frame the network looked ([`Place`]). Out: words of `fovea_core` that triage and reports use.
//! Promise: pure functions; no answer makes them panic, and whatever they give is bounded and inside the frame.

mod axes;
mod mask;
mod nuclei;
mod outline;
mod scores;
mod stitch;
mod watershed;

pub use mask::{LabelMap, Place, REGIONS_MAX, heat, mask, mask_as_told, mask_labels, missing};
pub use nuclei::nuclei_measurements;
pub use outline::OUTLINE_POINTS_MAX;
pub use scores::{Gated, classes, fit_probability, gate, level, level_measurement, scores};
pub use stitch::{OVERLAP_PX, Part, Stitched, parts};
pub use watershed::{NUCLEI_MAX, NucleusMap, nuclei};
