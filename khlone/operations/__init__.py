"""The use cases: plain functions of (App, request) that return a result, without click or printing."""
