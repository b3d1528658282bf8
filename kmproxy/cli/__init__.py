"""The command line: flags, help, logs, and one function for each command.

Must not know the work of a command.

    flags       the flags of each command, how they are split, and `--help`
    completion  the scripts that complete them in a shell
    read        the configuration read from flags, the environment and the YAML file
    log         the format of log lines
    progress    how far a command has come, shown on a terminal
    main        the commands
"""
