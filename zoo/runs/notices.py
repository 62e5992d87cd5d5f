"""What other packages print on import that is no news to a user of this one."""


def without_adroits_notice() -> None:
    """Before gymnasium-robotics is imported: keeps it from printing that rewards of AdroitHand*Dense-v1 have changed."""
    try:
        from farama_notifications import notifications
    except ImportError:
        return
    told = notifications.get("gymnasium_robotics", {})
    for version in [version for version, notice in told.items() if notice.startswith("AdroitHandRelocateDense-v1")]:
        del told[version]
