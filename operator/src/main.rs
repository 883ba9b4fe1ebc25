//! Runs Sheaf on Kubernetes.

fn main() {}
