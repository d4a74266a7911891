"""Audits of a finished run or study: can its answers be trusted, and which labels can?"""
