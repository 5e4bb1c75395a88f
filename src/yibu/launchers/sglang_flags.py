"""Print, as JSON, the flags that the SGLang of this environment has."""

from yibu.launchers.argparse_flags import print_table

if __name__ == "__main__":
    print_table("sglang")
