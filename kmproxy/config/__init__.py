"""Everything that a user can write down: flags, variables, the YAML file, label rules.

Knows names, types, defaults and what contradicts what. Must not know files but those it is
handed the text of, connections, or what a setting does.

    types        addresses, secrets, files; parsers of a flag's text
    settings     a field that is a flag, a YAML key and a line of help at once
    label_rules  rules from namespaces' labels and annotations to labels of samples
    sections     the daemon's settings, in frozen sections
    commands     the settings of the other commands
    variables    settings from environment variables
    expressions  regular expressions of RE2, for names of metrics
    http_client  the keys of an HTTP client of Prometheus
    proxies      which forward proxy leads to a URL
    web          the web configuration of Prometheus' exporters
    yaml_text    YAML without repeated keys
    loader       flags, variables and the YAML file made into one configuration
    recipe       what the configuration says is done to expositions
"""
