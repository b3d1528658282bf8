"""Everything that a user can configure: flags, variables, the YAML file, label rules.

Knows names, types, defaults and contradictions between settings. Must not know connections, or
what a setting does. Must not open files: it is given the text of a file.

    types           addresses, secrets, files; parsers of a flag's text
    settings        a field that is at once a flag, a YAML key and a line of help
    label_rules     rules that make labels of samples from labels and annotations of namespaces
    pod_labels      labels of samples from their pods: settings and rules
    samples         the settings of samples: labels and selection
    sections        the daemon's settings, in frozen sections
    commands        the settings of the other commands
    logs            the settings of `kmproxy logs`
    logs_values     reads their values from text
    logs_contradictions  finds settings of `kmproxy logs` that make no sense together
    variables       settings from environment variables
    expressions     regular expressions of RE2, for metric names
    http_options    the options of an HTTP client, as frozen values
    http_client     the keys of an HTTP client of Prometheus, read from YAML
    upstreams       other exporters, their URLs and namespace labels
    proxies         finds the forward proxy for a URL
    web             the web config of Prometheus' exporters
    yaml_text       YAML without repeated keys
    contradictions  values that make no sense together, or have no effect
    loader          makes one configuration from flags, variables and the YAML file
    recipe          makes the recipe for expositions from the configuration
"""
