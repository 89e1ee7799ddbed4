"""Three services in a row, each with a tail sampler of its own: is a trace kept as a whole?"""
