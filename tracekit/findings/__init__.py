"""What is wrong with a trace: one file a finding, each a plain function over a trace."""
