"""The rows of the documented tables of settings."""

from kmproxy.config.settings import settings


def setting_rows(sections, without=()):
    """Yield a row for each setting of the sections, but for those `without`."""
    for kind in sections:
        blank = kind()
        for key, spec in settings(kind).items():
            if spec.name in without:
                continue
            default = getattr(blank, key)
            if spec.repeatable:
                shown = ", ".join(default)
            elif spec.metavar == "DURATION" and default is not None:
                shown = f"{default:g}s"
            else:
                shown = "" if default in {None, False} else str(default)
            flag = f"--{spec.name} {spec.metavar}".rstrip().replace("|", "\\|")
            notes = ["repeatable"] if spec.repeatable else []
            notes += [f"also `--{alias}`" for alias in spec.aliases]
            text = spec.help.replace("|", "\\|") + (f" ({'; '.join(notes)})" if notes else "")
            yield f"| `{flag}` | {f'`{shown}`' if shown else ''} | {text} |"
