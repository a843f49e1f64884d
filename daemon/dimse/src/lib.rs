//! DIMSE messages over dicom-ul: echo and store, both roles.
