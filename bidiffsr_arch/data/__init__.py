"""Pictures: MATLAB-exact resizing, the demo's photographs, the paired data set, and strips to look at results."""
