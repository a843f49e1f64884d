//! The JSON API over the box's state: for foveactl, and for pages to come.
