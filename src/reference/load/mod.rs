//! Client traffic.
