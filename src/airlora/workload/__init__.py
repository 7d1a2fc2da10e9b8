"""Models, data, objectives and text statistics; submodules are imported one by one, for torch is heavy."""
