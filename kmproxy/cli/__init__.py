"""The command line: flags, help, logs, one function for each command.

Must not know what a command does.

    main  all of it
"""
