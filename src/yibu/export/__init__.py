"""A deployment as files of other supervisors. Pure: the caller decides where they are written."""
