"""The methods of HubService that look after the store: proto to engine to proto."""

from __future__ import annotations

from typing import Any

import grpc

from agentcom.v1 import hub_service_pb2
from hub.core import page
from hub.core.backup import Trigger
from hub.engine.alerts.board import Board
from hub.engine.care.desk import Care
from hub.engine.care.doctor import Doctor
from hub.rpc import translate_care
from kit import ids

Call = grpc.aio.ServicerContext[Any, Any]


class CareMethods:
    """Backups, audits, compaction and the doctor."""

    def __init__(self, care: Care, board: Board, doctor: Doctor) -> None:
        self._care = care
        self._board = board
        self._doctor = doctor

    async def CreateBackup(
        self, request: hub_service_pb2.CreateBackupRequest, context: Call
    ) -> hub_service_pb2.CreateBackupResponse:
        try:
            made = await self._care.backup(Trigger.REQUEST)
        finally:
            self._board.wake.set()
        response = hub_service_pb2.CreateBackupResponse()
        translate_care.write_backup(made, response.backup)
        return response

    async def ListBackups(
        self, request: hub_service_pb2.ListBackupsRequest, context: Call
    ) -> hub_service_pb2.ListBackupsResponse:
        after = page.decode(request.page_token, "backups")
        found, cursor = self._care.backups(after=after, limit=page.size(request.page_size))
        response = hub_service_pb2.ListBackupsResponse()
        for backup in found:
            translate_care.write_backup(backup, response.backups.add())
        response.next_page_token = page.encode(cursor, "backups") if cursor else ""
        return response

    async def VerifyStore(
        self, request: hub_service_pb2.VerifyStoreRequest, context: Call
    ) -> hub_service_pb2.VerifyStoreResponse:
        backup = ids.parse_name("backups", request.backup) if request.backup else ""
        response = hub_service_pb2.VerifyStoreResponse()
        translate_care.write_findings(await self._care.verify(backup), response)
        return response

    async def CompactStore(
        self, request: hub_service_pb2.CompactStoreRequest, context: Call
    ) -> hub_service_pb2.CompactStoreResponse:
        before, after = await self._care.compact()
        return hub_service_pb2.CompactStoreResponse(before_bytes=before, after_bytes=after)

    async def DiagnoseHub(
        self, request: hub_service_pb2.DiagnoseHubRequest, context: Call
    ) -> hub_service_pb2.DiagnoseHubResponse:
        response = hub_service_pb2.DiagnoseHubResponse()
        for diagnosis in await self._doctor.examine():
            translate_care.write_diagnosis(diagnosis, response.diagnoses.add())
        return response
