//! Transfer syntax to frames, frame by frame, in bounded memory.
