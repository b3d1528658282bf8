"""The command line: flags, help, logs, one function for each command.

Must not know the work of a command.

    main  reads the command line and runs a command
"""
