//! SIMD image kernels: slices and numbers, never DICOM.
