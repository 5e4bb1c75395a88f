"""A deployment as the files of other supervisors. Pure: what is written where is the caller's."""
