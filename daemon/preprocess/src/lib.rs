//! Region of interest, picture quality and the model's tensor.
